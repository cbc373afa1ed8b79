rule correspondence:
    """Every patch of a scene's frames to its 3D point, and how much the frames overlap. A patch has `stride` pixels."""
    input:
        frames=rules.depth.output.frames,
    output:
        correspondences="results/correspondences/{dataset}/stride{stride}/{scene}.h5",
    log:
        "results/logs/correspondence/{dataset}/stride{stride}/{scene}.log",
    benchmark:
        "results/benchmarks/correspondence/{dataset}/stride{stride}/{scene}.tsv"
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=3000,
    params:
        code=code("correspondence"),
        tolerance=setting("patches", "overlap_tolerance"),
    script:
        "../workflow_scripts/correspondence.py"
