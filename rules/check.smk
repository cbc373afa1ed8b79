rule check_scene:
    """Check all raw files from which the frames of a scene are made. Problems are written to the manifest, so that a
    damaged scene does not stop the others."""
    input:
        raw=of(plan.raw_files, then=in_place),
    output:
        manifest=paths.MANIFEST,
    log:
        "results/logs/check_scene/{dataset}/{scene}.log",
    benchmark:
        "results/benchmarks/check_scene/{dataset}/{scene}.tsv"
    priority: 90
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=requested(resources_of.check_scene_minutes),
    params:
        own=own(plan.check_scene_recipe),
        recipe=of(plan.check_scene_recipe),
        raw=lambda wildcards: config["datasets"][wildcards.dataset]["raw"],
        state=of(plan.raw_state),
    script:
        "../workflow_scripts/check_scene.py"


rule check_table:
    """Write the table of the checks of all scenes of the run, including damaged ones."""
    input:
        [paths.MANIFEST.format(dataset=dataset, scene=scene) for dataset, scene in plan.scenes],
    output:
        csv="results/tables/checks.csv",
        markdown="results/tables/checks.md",
        html=report(
            "results/tables/checks.html", caption="../report/checks.rst", category="Data", labels={"kind": "table"}
        ),
        figure=report(
            "results/figures/checks.svg",
            caption="../report/checks_figure.rst",
            category="Data",
            labels={"kind": "figure"},
        ),
        png="results/figures/checks.png",
    log:
        "results/logs/check_table.log",
    benchmark:
        "results/benchmarks/check_table.tsv"
    priority: 100
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=500,
    params:
        code=plan.step_code("check_table"),
        sizes=plan.prepared_sizes(),
        recipes=hidden(plan.manifest_recipes),
    script:
        "../workflow_scripts/check_table.py"


rule check_all:
    """Fail if any scene of the run did not pass its check, and list all problems. Another rule writes the table, so it
    is not deleted on failure."""
    input:
        manifests=rules.check_table.input,
        table=rules.check_table.output,
    output:
        passed="results/manifests/passed.txt",
    log:
        "results/logs/check_all.log",
    benchmark:
        "results/benchmarks/check_all.tsv"
    priority: 100
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=500,
    params:
        code=plan.step_code("check_all"),
        recipes=hidden(plan.manifest_recipes),
    script:
        "../workflow_scripts/check_all.py"


rule checks:
    """Alias of `check_all`."""
    input:
        rules.check_all.output,


rule checks_table:
    """Alias of `check_table`."""
    input:
        rules.check_table.output,
