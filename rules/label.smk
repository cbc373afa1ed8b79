rule check_labels:
    """Check the label files of a raw scene. Frames do not depend on them."""
    input:
        raw=of(plan.raw_label_files, then=in_place),
    output:
        manifest=paths.LABEL_MANIFEST,
    log:
        "results/logs/check_labels/{dataset}/{scene}.log",
    benchmark:
        "results/benchmarks/check_labels/{dataset}/{scene}.tsv"
    wildcard_constraints:
        dataset=one_of(plan.datasets_with("labels")),
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=requested(resources_of.check_labels_minutes),
    params:
        own=own(plan.check_labels_recipe),
        recipe=of(plan.check_labels_recipe),
        raw=lambda wildcards: config["datasets"][wildcards.dataset]["raw"],
        state=of(plan.label_state),
    script:
        "../workflow_scripts/check_labels.py"


rule label:
    """Label every pixel of a scene's frames with its object and category."""
    input:
        frames=paths.FRAMES,
        manifest=paths.LABEL_MANIFEST,
        # The manifest contains a digest of the raw files, so that a new time stamp alone causes no rerun.
        raw=ancient(of(plan.raw_label_files, then=in_place)),
        mapping=of(plan.label_mapping, then=in_place),
    output:
        labels=paths.LABELS,
    log:
        "results/logs/label/{dataset}/{scene}.log",
    benchmark:
        "results/benchmarks/label/{dataset}/{scene}.tsv"
    wildcard_constraints:
        dataset=one_of(plan.datasets_with("labels")),
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=requested(resources_of.label_minutes),
    params:
        own=own(plan.label_recipe),
        recipe=of(plan.label_recipe),
        raw=lambda wildcards: config["datasets"][wildcards.dataset]["raw"],
    script:
        "../workflow_scripts/label.py"


rule label_counts:
    """Write the tables of the labels: one line per scene of the run, and totals of the categories."""
    input:
        [paths.LABELS.format(dataset=dataset, scene=scene) for dataset, scene in plan.labelled_scenes],
    output:
        scenes="results/tables/labels.csv",
        scenes_markdown="results/tables/labels.md",
        scenes_html=report(
            "results/tables/labels.html", caption="../report/labels.rst", category="Data", labels={"shows": "scenes"}
        ),
        categories="results/tables/label_categories.csv",
        categories_markdown="results/tables/label_categories.md",
        categories_html=report(
            "results/tables/label_categories.html",
            caption="../report/labels.rst",
            category="Data",
            labels={"shows": "categories"},
        ),
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
        code=plan.step_code("label_counts"),
        recipes=hidden(plan.label_recipes),
    script:
        "../workflow_scripts/label_counts.py"


rule label_views:
    """Draw photos of a scene beside the maps of its objects and categories."""
    input:
        frames=paths.FRAMES,
        labels=paths.LABELS,
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
        dataset=one_of(plan.datasets_with("labels")),
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        code=plan.step_code("label_views"),
        frames=of(plan.frames_recipe),
        labels=of(plan.label_recipe),
        views=config["figures"]["views"],
    script:
        "../workflow_scripts/label_views.py"


rule labels:
    """Make labels of all scenes of the run whose dataset has a `labels` block: maps, tables and figures."""
    input:
        rules.label_counts.output,
        [f"results/figures/labels/{dataset}/{scene}.svg" for dataset, scene in plan.labelled_scenes],
