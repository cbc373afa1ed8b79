rule extract:
    """Feature maps of all frames of a scene, by a trained network, or a fitted one, where there is one."""
    input:
        frames=rules.depth.output.frames,
        checkpoint=fitted_model,
        weights=weights,
        encoded=lambda wildcards: encoded_scenes(wildcards, [(wildcards.dataset, wildcards.scene)]),
    output:
        features="results/features/{split}/{experiment}/seed{seed}/{dataset}/{scene}.h5",
    log:
        "results/logs/extract/{split}/{experiment}/seed{seed}/{dataset}/{scene}.log",
    benchmark:
        "results/benchmarks/extract/{split}/{experiment}/seed{seed}/{dataset}/{scene}.tsv"
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=3000,
    params:
        code=lambda wildcards: model_code("extract", config["experiments"][wildcards.experiment]["model"]),
        model=lambda wildcards: config["experiments"][wildcards.experiment]["model"],
    script:
        "../workflow_scripts/extract.py"
