rule pairs:
    """Index the positive pairs of a scene within `radius` metres, for training runs that draw their batches from them."""
    input:
        correspondences=paths.CORRESPONDENCES,
    output:
        pairs=paths.PAIRS,
    log:
        "results/logs/pairs/{dataset}/stride{stride}/radius{radius}/{scene}.log",
    benchmark:
        "results/benchmarks/pairs/{dataset}/stride{stride}/radius{radius}/{scene}.tsv"
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=requested(resources_of.pairs_mb),
        runtime=requested(resources_of.pairs_minutes),
    params:
        own=own(plan.pairs_recipe),
        recipe=of(plan.pairs_recipe),
    script:
        "../workflow_scripts/pairs.py"
