rule evaluate:
    """Scores of one experiment on the test scenes of a split, with the passport that says how they came about."""
    input:
        frames=judged_files(rules.depth.output.frames),
        correspondences=judged_files(rules.correspondence.output.correspondences, giving="places"),
        labels=judged_files(rules.label.output.labels, giving="labels"),
        features=judged_files(rules.extract.output.features),
    output:
        metrics="results/metrics/{benchmark}/{split}/{experiment}/seed{seed}.json",
    log:
        "results/logs/evaluate/{benchmark}/{split}/{experiment}/seed{seed}.log",
    benchmark:
        "results/benchmarks/evaluate/{benchmark}/{split}/{experiment}/seed{seed}.tsv"
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards: 6000 if wildcards.benchmark == "place_recognition" else 3000,
        gpu=lambda wildcards: int(wildcards.benchmark.endswith("segmentation")),
    params:
        code=lambda wildcards: evaluation_code(wildcards.benchmark),
        settings=lambda wildcards: config["benchmarks"][wildcards.benchmark],
        recipe=lambda wildcards: recipe(wildcards.benchmark, wildcards.split, wildcards.experiment),
    script:
        "../workflow_scripts/evaluate.py"
