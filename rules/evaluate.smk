rule evaluate:
    """Evaluate one extractor on the test scenes of a split; the scores include a provenance record."""
    input:
        unpack(of(plan.evaluate_inputs)),
    output:
        metrics=paths.METRICS,
    log:
        "results/logs/evaluate/{benchmark}/{split}/{experiment}/{checkpoint}.log",
    benchmark:
        "results/benchmarks/evaluate/{benchmark}/{split}/{experiment}/{checkpoint}.tsv"
    wildcard_constraints:
        benchmark=one_of(name for name in config["benchmarks"] if not BENCHMARKS[name].per_scene),
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=requested(resources_of.evaluate_mb),
        runtime=requested(resources_of.evaluate_minutes),
        gpu=gpus(resources_of.evaluate_gpus),
    params:
        own=own(plan.evaluate_recipe),
        recipe=of(plan.evaluate_recipe),
        scenes=hidden(plan.evaluated_scenes),
        training=hidden(plan.training_correspondences),
    script:
        "../workflow_scripts/evaluate.py"


rule evaluate_scene:
    """Evaluate one extractor on one scene, for benchmarks whose evaluation is divided by scene. The names of the items
    do not depend on the split."""
    input:
        unpack(of(plan.evaluate_scene_inputs)),
    output:
        scene_items=paths.ITEMS,
    log:
        "results/logs/evaluate_scene/{benchmark}/{experiment}/{checkpoint}/{dataset}/{scene}.log",
    benchmark:
        "results/benchmarks/evaluate_scene/{benchmark}/{experiment}/{checkpoint}/{dataset}/{scene}.tsv"
    wildcard_constraints:
        benchmark=one_of(name for name in config["benchmarks"] if BENCHMARKS[name].per_scene),
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=requested(resources_of.evaluate_scene_mb),
        runtime=requested(resources_of.evaluate_scene_minutes),
        gpu=gpus(resources_of.evaluate_gpus),
    params:
        own=own(plan.evaluate_scene_recipe),
        recipe=of(plan.evaluate_scene_recipe),
    script:
        "../workflow_scripts/evaluate_scene.py"


rule merge_items:
    """Merge the items of the test scenes of a split to a metric file, as if one job had evaluated all of them."""
    input:
        of(plan.merge_items_inputs),
    output:
        metrics=paths.METRICS,
    log:
        "results/logs/merge_items/{benchmark}/{split}/{experiment}/{checkpoint}.log",
    benchmark:
        "results/benchmarks/merge_items/{benchmark}/{split}/{experiment}/{checkpoint}.tsv"
    wildcard_constraints:
        benchmark=one_of(name for name in config["benchmarks"] if BENCHMARKS[name].per_scene),
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        own=own(plan.merge_items_recipe),
        recipe=of(plan.merge_items_recipe),
    script:
        "../workflow_scripts/merge_items.py"
