rule simulate:
    """Simulate a furnished building and write it as a raw scene, instead of a download."""
    output:
        scene=directory(paths.RAW),
    log:
        "results/logs/simulate/{dataset}/{scene}.log",
    benchmark:
        "results/benchmarks/simulate/{dataset}/{scene}.tsv"
    wildcard_constraints:
        dataset=one_of(plan.datasets_with("simulate")),
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        own=own(plan.simulate_recipe),
        recipe=of(plan.simulate_recipe),
    script:
        "../workflow_scripts/simulate.py"
