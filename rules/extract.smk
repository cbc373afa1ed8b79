rule extract:
    """Extract the feature maps of all frames of a scene. Their names depend only on their recipe: a deterministic
    extractor is run once for all splits and seeds."""
    input:
        unpack(of(plan.extract_inputs, then=in_place)),
    output:
        features=paths.FEATURES,
    log:
        "results/logs/extract/{experiment}/{checkpoint}/{dataset}/{scene}.log",
    benchmark:
        "results/benchmarks/extract/{experiment}/{checkpoint}/{dataset}/{scene}.tsv"
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=requested(resources_of.extract_mb),
        runtime=requested(resources_of.extract_minutes),
        gpu=gpus(resources_of.extract_gpus),
    params:
        own=own(plan.extract_recipe),
        recipe=of(plan.extract_recipe),
    script:
        "../workflow_scripts/extract.py"
