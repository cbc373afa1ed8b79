rule train:
    """Train the network of an experiment on the scenes of a split.

    Its resumable state is not an output, because Snakemake deletes the outputs of a failed job: it lies beside them, in
    a folder named by a fingerprint of the code, the settings and the input files.
    """
    input:
        train_frames=scene_files(rules.depth.output.frames, "train"),
        train_correspondences=scene_files(rules.correspondence.output.correspondences, "train", stride=model_stride),
        val_frames=scene_files(rules.depth.output.frames, "val"),
        train_encoded=encoded_part("train"),
        val_correspondences=scene_files(rules.correspondence.output.correspondences, "val", stride=model_stride),
        val_encoded=encoded_part("val"),
        weights=weights,
        init=lambda wildcards: initial_weights(wildcards.experiment),
    output:
        model="results/train/{split}/{experiment}/seed{seed}/model.safetensors",
        curve="results/train/{split}/{experiment}/seed{seed}/log.csv",
    log:
        "results/logs/train/{split}/{experiment}/seed{seed}.log",
    benchmark:
        "results/benchmarks/train/{split}/{experiment}/seed{seed}.tsv"
    wildcard_constraints:
        experiment=one_of(name for name, how in FITTED.items() if how == "train"),
    priority: 50
    conda:
        "../environment.yml"
    threads: 8
    resources:
        mem_mb=6000,
        gpu=lambda wildcards: config["experiments"][wildcards.experiment]["train"].get("processes", 1),
    params:
        code=lambda wildcards: model_code("train", config["experiments"][wildcards.experiment]["model"]),
        model=lambda wildcards: config["experiments"][wildcards.experiment]["model"],
        train=lambda wildcards: config["experiments"][wildcards.experiment]["train"],
        data=training_data,
    script:
        "../workflow_scripts/train.py"


rule fit_pca:
    """Principal components of a backbone's features on the scenes of a split, in the place of a trained network."""
    input:
        frames=scene_files(rules.depth.output.frames, "train"),
        encoded=encoded_part("train"),
        weights=weights,
    output:
        model=rules.train.output.model,
    log:
        "results/logs/fit_pca/{split}/{experiment}/seed{seed}.log",
    benchmark:
        "results/benchmarks/fit_pca/{split}/{experiment}/seed{seed}.tsv"
    wildcard_constraints:
        experiment=one_of(name for name, how in FITTED.items() if how == "pca"),
    conda:
        "../environment.yml"
    threads: 2
    resources:
        mem_mb=4000,
        gpu=1,
    params:
        code=lambda wildcards: model_code("fit_pca", config["experiments"][wildcards.experiment]["model"]),
        model=lambda wildcards: config["experiments"][wildcards.experiment]["model"],
        whiten=lambda wildcards: config["experiments"][wildcards.experiment]["pca"].get("whiten", False),
        data=training_data,
    script:
        "../workflow_scripts/fit_pca.py"
