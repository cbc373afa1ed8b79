rule depth:
    """Colour and depth of a scene at one size, holes filled from the mesh. Refuses a scene that failed its check."""
    input:
        manifest=rules.check.output.manifest,
        # The manifest stands for the raw files: they are large, so a time stamp alone must not start all over.
        raw=ancient(raw_files),
        fused=fused_mesh,
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
        code=lambda wildcards: raw_code("depth", wildcards.dataset),
        format=setting("format"),
        raw=setting("raw"),
        settings=setting("frames"),
    script:
        "../workflow_scripts/depth.py"
