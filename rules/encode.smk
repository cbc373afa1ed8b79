rule encode:
    """Compute the features of the frozen part of a model, once for all experiments that share it."""
    input:
        unpack(of(plan.encode_inputs, then=in_place)),
    output:
        encoded=paths.ENCODED,
    log:
        "results/logs/encode/{encoder}/{dataset}/{scene}.log",
    benchmark:
        "results/benchmarks/encode/{encoder}/{dataset}/{scene}.tsv"
    conda:
        "../environment.yml"
    threads: 2
    resources:
        mem_mb=requested(resources_of.encode_mb),
        runtime=requested(resources_of.encode_minutes),
        gpu=gpus(1),
    params:
        own=own(plan.encode_recipe),
        recipe=of(plan.encode_recipe),
    script:
        "../workflow_scripts/encode.py"
