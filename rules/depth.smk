rule depth:
    """Colour and depth of a scene at one size, holes filled from the mesh. Refuses a scene that failed its check."""
    input:
        manifest=rules.check.output.manifest,
        # The manifest stands for the raw files: they are large, so a time stamp alone must not start all over.
        raw=ancient(raw_files),
    output:
        frames="results/frames/{dataset}/{scene}.h5",
    log:
        "results/logs/depth/{dataset}/{scene}.log",
    benchmark:
        "results/benchmarks/depth/{dataset}/{scene}.tsv"
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=3000,
    params:
        code=code("depth"),
        format=lambda wildcards: config["datasets"][wildcards.dataset]["format"],
        raw=lambda wildcards: config["datasets"][wildcards.dataset]["raw"],
        settings=lambda wildcards: config["datasets"][wildcards.dataset]["frames"],
    script:
        "../workflow_scripts/depth.py"
