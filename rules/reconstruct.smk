rule reconstruct:
    """Make a COLMAP model from a folder of photographs: the raw scene of a dataset that has no poses."""
    input:
        images=lambda wildcards: Path(setting("reconstruct", "images")(wildcards), wildcards.scene),
    output:
        scene=directory("results/raw/{dataset}/{scene}"),
    log:
        "results/logs/reconstruct/{dataset}/{scene}.log",
    benchmark:
        "results/benchmarks/reconstruct/{dataset}/{scene}.tsv"
    wildcard_constraints:
        dataset=one_of(datasets_with("reconstruct")),
    conda:
        "../environment.yml"
    threads: 4
    resources:
        mem_mb=4000,
    params:
        code=code("reconstruct"),
        settings=setting("reconstruct"),
    script:
        "../workflow_scripts/reconstruct.py"
