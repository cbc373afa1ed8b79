rule check_scene:
    """Look at every raw file that the frames of a scene are made from. Problems go into the manifest, so that one broken scene
    does not stop the others."""
    input:
        raw=of(plan.raw_files),
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
    params:
        own=own(plan.check_scene_recipe),
        recipe=of(plan.check_scene_recipe),
        raw=lambda wildcards: config["datasets"][wildcards.dataset]["raw"],
        state=of(plan.raw_state),
    script:
        "../workflow_scripts/check_scene.py"


rule check_table:
    """Table of the checks of all scenes of the run, broken ones among them."""
    input:
        [paths.MANIFEST.format(dataset=dataset, scene=scene) for dataset, scene in plan.places],
    output:
        csv=report("results/tables/checks.csv", caption="../report/checks.rst", category="Data"),
        markdown="results/tables/checks.md",
        figure=report("results/figures/checks.svg", caption="../report/checks.rst", category="Data"),
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
    """Fail if any scene of the run did not pass its check, and list all problems. The table is made by another rule, so that it
    survives this failure."""
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
    """Another name of `check_all`."""
    input:
        rules.check_all.output,


rule checks_table:
    """Another name of `check_table`."""
    input:
        rules.check_table.output,
