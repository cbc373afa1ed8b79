MANIFESTS = [f"results/manifests/{dataset}/{scene}.json" for dataset, scene in run_scenes()]


rule check:
    """Look at every raw file of a scene. Problems go into the manifest, so that one broken scene stops no other."""
    input:
        raw=raw_files,
    output:
        manifest="results/manifests/{dataset}/{scene}.json",
    log:
        "results/logs/check/{dataset}/{scene}.log",
    benchmark:
        "results/benchmarks/check/{dataset}/{scene}.tsv"
    priority: 90
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        code=lambda wildcards: raw_code("check", wildcards.dataset),
        format=setting("format"),
        raw=setting("raw"),
        decode=setting("check", "decode"),
        frames=setting("frames"),
        patches=setting("patches"),
    script:
        "../workflow_scripts/check.py"


rule checks_table:
    """One table of all scenes of the run, broken ones among them."""
    input:
        MANIFESTS,
    output:
        csv=report("results/tables/checks.csv", caption="../report/checks.rst", category="Data"),
        markdown="results/tables/checks.md",
    log:
        "results/logs/checks_table.log",
    benchmark:
        "results/benchmarks/checks_table.tsv"
    priority: 100
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=500,
    params:
        code=code("checks_table"),
    script:
        "../workflow_scripts/checks_table.py"


rule checks:
    """Fails if any scene of the run is broken, with all of their problems. The table stays: it is of another rule."""
    input:
        manifests=MANIFESTS,
        table=rules.checks_table.output,
    output:
        whole="results/manifests/whole.txt",
    log:
        "results/logs/checks.log",
    benchmark:
        "results/benchmarks/checks.tsv"
    priority: 100
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=500,
    params:
        code=code("checks"),
    script:
        "../workflow_scripts/checks.py"
