rule reconstruct:
    """Reconstruct a COLMAP model from a folder of photographs: the raw scene of a dataset without poses."""
    input:
        unpack(of(plan.reconstruct_inputs, then=in_place)),
    output:
        scene=directory(paths.RAW),
    log:
        "results/logs/reconstruct/{dataset}/{scene}.log",
    benchmark:
        "results/benchmarks/reconstruct/{dataset}/{scene}.tsv"
    wildcard_constraints:
        dataset=one_of(plan.datasets_with("reconstruct")),
    conda:
        "../environment.yml"
    threads: 4
    resources:
        mem_mb=4000,
        runtime=480,
    params:
        own=own(plan.reconstruct_recipe),
        recipe=of(plan.reconstruct_recipe),
    script:
        "../workflow_scripts/reconstruct.py"
