rule ablation_table:
    """Write the table of one benchmark over the variants and seeds of an ablation."""
    input:
        of(summary.ablation_table_inputs),
    output:
        csv="results/ablations/{ablation}/{benchmark}.csv",
        markdown="results/ablations/{ablation}/{benchmark}.md",
        latex="results/ablations/{ablation}/{benchmark}.tex",
        html="results/ablations/{ablation}/{benchmark}.html",
    log:
        "results/logs/ablation_table/{ablation}/{benchmark}.log",
    benchmark:
        "results/benchmarks/ablation_table/{ablation}/{benchmark}.tsv"
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        code=lambda wildcards: plan.step_code("table", f"evaluation/{wildcards.benchmark}"),
        titles=of(summary.variant_titles),
        rows=of(summary.ablation_rows),
        recipes=hidden(summary.ablation_table_recipes),
    script:
        "../workflow_scripts/table.py"


rule ablation_plot:
    """Plot the scores of the variants of an ablation, one panel per benchmark."""
    input:
        of(summary.ablation_plot_inputs),
    output:
        svg="results/ablations/{ablation}/plot.svg",
        png="results/ablations/{ablation}/plot.png",
    log:
        "results/logs/ablation_plot/{ablation}.log",
    benchmark:
        "results/benchmarks/ablation_plot/{ablation}.tsv"
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        code=lambda wildcards: plan.step_code(
            "ablation_plot", *(f"evaluation/{name}" for name in summary.ablation_benchmarks(wildcards.ablation))
        ),
        titles=of(summary.variant_titles),
        rows=of(summary.all_ablation_rows),
        title=lambda wildcards: config["ablations"][wildcards.ablation]["title"],
        recipes=hidden(summary.ablation_plot_recipes),
    script:
        "../workflow_scripts/ablation_plot.py"


for ablation in summary.ablations:

    rule:
        """Make the tables and the plot of one ablation."""
        name:
            f"ablation_{ablation}"
        input:
            expand(
                "results/ablations/{ablation}/{benchmark}.csv",
                ablation=ablation,
                benchmark=summary.ablation_benchmarks(ablation),
            ),
            f"results/ablations/{ablation}/plot.svg",
        localrule: True
