rule fuse:
    """A mesh from a scene's own depth images, to fill their holes with where the dataset has no mesh."""
    input:
        manifest=rules.check.output.manifest,
        raw=ancient(raw_files),
    output:
        mesh="results/meshes/{dataset}/{scene}.ply",
    log:
        "results/logs/fuse/{dataset}/{scene}.log",
    benchmark:
        "results/benchmarks/fuse/{dataset}/{scene}.tsv"
    wildcard_constraints:
        dataset=one_of(datasets_with("fuse")),
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
    params:
        code=lambda wildcards: raw_code("fuse", wildcards.dataset),
        format=setting("format"),
        raw=setting("raw"),
        settings=setting("fuse"),
    script:
        "../workflow_scripts/fuse.py"
