rule simulate:
    """Build a furnished house and write it as a raw scene, in place of a download."""
    output:
        scene=directory("results/raw/{dataset}/{scene}"),
    log:
        "results/logs/simulate/{dataset}/{scene}.log",
    benchmark:
        "results/benchmarks/simulate/{dataset}/{scene}.tsv"
    wildcard_constraints:
        dataset=one_of(datasets_with("simulate")),
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        code=lambda wildcards: raw_code("simulate", wildcards.dataset),
        format=setting("format"),
        settings=setting("simulate"),
    script:
        "../workflow_scripts/simulate.py"
