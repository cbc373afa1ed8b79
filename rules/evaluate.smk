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
