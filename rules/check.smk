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


rule checks:
    """One table of all scenes of the run. Fails if any is broken, with all of their problems."""
    input:
        [f"results/manifests/{dataset}/{scene}.json" for dataset, scene in run_scenes()],
    output:
        csv=report("results/tables/checks.csv", caption="../report/checks.rst", category="Data"),
        markdown="results/tables/checks.md",
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
