rule simulate:
    """Build a furnished house and write it as a raw scene, in place of a download."""
    output:
        expand("results/raw/{{dataset}}/{{scene}}/{kind}.zip", kind=RAW_KINDS),
    log:
        "results/logs/simulate/{dataset}/{scene}.log",
    benchmark:
        "results/benchmarks/simulate/{dataset}/{scene}.tsv"
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        code=code("simulate"),
        settings=lambda wildcards: config["datasets"][wildcards.dataset]["simulate"],
    script:
        "../workflow_scripts/simulate.py"
