rule correspondence:
    """Every patch of a scene's frames to its 3D point, and how much the frames overlap."""
    input:
        frames=rules.depth.output.frames,
    output:
        correspondences="results/correspondences/{dataset}/{scene}.h5",
    log:
        "results/logs/correspondence/{dataset}/{scene}.log",
    benchmark:
        "results/benchmarks/correspondence/{dataset}/{scene}.tsv"
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=3000,
    params:
        code=code("correspondence"),
        settings=setting("patches"),
    script:
        "../workflow_scripts/correspondence.py"
