rule label:
    """Which object and which category every pixel of a scene's frames shows."""
    input:
        frames=rules.depth.output.frames,
        # The frames stand for the raw files: they are made again when the manifest changes.
        raw=ancient(raw_files),
        mapping=lambda wildcards: mapping_of(wildcards.dataset),
    output:
        labels="results/labels/{dataset}/{scene}.h5",
    log:
        "results/logs/label/{dataset}/{scene}.log",
    benchmark:
        "results/benchmarks/label/{dataset}/{scene}.tsv"
    wildcard_constraints:
        dataset=one_of(datasets_with("labels")),
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
    params:
        code=lambda wildcards: raw_code("label", wildcards.dataset),
        format=setting("format"),
        raw=setting("raw"),
    script:
        "../workflow_scripts/label.py"


rule label_counts:
    """Tables of the labels: a line for each scene of the run, and totals of the categories."""
    input:
        labelled("results/labels/{dataset}/{scene}.h5"),
    output:
        scenes=report(
            "results/tables/labels.csv", caption="../report/labels.rst", category="Data", labels={"shows": "scenes"}
        ),
        scenes_markdown="results/tables/labels.md",
        categories=report(
            "results/tables/label_categories.csv",
            caption="../report/labels.rst",
            category="Data",
            labels={"shows": "categories"},
        ),
        categories_markdown="results/tables/label_categories.md",
    log:
        "results/logs/label_counts.log",
    benchmark:
        "results/benchmarks/label_counts.tsv"
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        code=code("label_counts"),
    script:
        "../workflow_scripts/label_counts.py"


rule label_views:
    """Photos of a scene beside the maps of its objects and categories."""
    input:
        frames=rules.depth.output.frames,
        labels=rules.label.output.labels,
    output:
        svg=report(
            "results/figures/labels/{dataset}/{scene}.svg",
            caption="../report/label_views.rst",
            category="Data",
            labels={"shows": "labels", "dataset": "{dataset}", "scene": "{scene}"},
        ),
        png="results/figures/labels/{dataset}/{scene}.png",
    log:
        "results/logs/label_views/{dataset}/{scene}.log",
    benchmark:
        "results/benchmarks/label_views/{dataset}/{scene}.tsv"
    wildcard_constraints:
        dataset=one_of(datasets_with("labels")),
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        code=code("label_views"),
        views=config["figures"]["views"],
    script:
        "../workflow_scripts/label_views.py"


rule labels:
    """Labels of all scenes of the run whose dataset has a `labels` block: maps, tables and figures."""
    input:
        rules.label_counts.output,
        labelled("results/figures/labels/{dataset}/{scene}.svg"),
