rule encode:
    """What the frozen part of a model makes of a scene's frames, computed once for all that stands on it."""
    input:
        frames=rules.depth.output.frames,
        weights=lambda wildcards: weight_files(ENCODERS[wildcards.encoder]),
    output:
        encoded="results/encoded/{encoder}/{dataset}/{scene}.h5",
    log:
        "results/logs/encode/{encoder}/{dataset}/{scene}.log",
    benchmark:
        "results/benchmarks/encode/{encoder}/{dataset}/{scene}.tsv"
    conda:
        "../environment.yml"
    threads: 2
    resources:
        mem_mb=4000,
        gpu=1,
    params:
        code=lambda wildcards: model_code("encode", ENCODERS[wildcards.encoder]),
        model=lambda wildcards: ENCODERS[wildcards.encoder],
    script:
        "../workflow_scripts/encode.py"
