for benchmark in plan.run["benchmarks"]:

    rule:
        """Write the table of one benchmark: one line per split, experiment, metric and condition, over the seeds.

        Rejects metric files that were not made by the current code and settings: Snakemake may not notice, for example
        after `.snakemake/` was deleted.
        """
        name:
            f"table_{benchmark}"
        input:
            list(summary.metric_rows(benchmark)),
        output:
            csv=f"results/tables/{benchmark}.csv",
            markdown=f"results/tables/{benchmark}.md",
            latex=f"results/tables/{benchmark}.tex",
            html=report(
                f"results/tables/{benchmark}.html",
                caption="../report/benchmark.rst",
                category="Results",
                labels={"benchmark": benchmark.replace("_", " "), "kind": "table"},
            ),
        log:
            f"results/logs/table/{benchmark}.log",
        benchmark:
            f"results/benchmarks/table/{benchmark}.tsv"
        conda:
            "../environment.yml"
        threads: 1
        resources:
            mem_mb=1000,
        params:
            code=plan.step_code("table", f"evaluation/{benchmark}"),
            titles=summary.titles,
            words=summary.caption(benchmark),
            rows=summary.metric_rows(benchmark),
            published=summary.published(benchmark),
            recipes=hidden(summary.metric_recipes, benchmark=benchmark),
        script:
            "../workflow_scripts/table.py"


for benchmark in plan.run["benchmarks"] if plan.run.get("comparisons") else []:

    rule:
        """Write the table of score differences between experiments, item by item."""
        name:
            f"differences_{benchmark}"
        input:
            list(summary.metric_rows(benchmark)),
        output:
            csv=f"results/tables/{benchmark}_differences.csv",
            markdown=f"results/tables/{benchmark}_differences.md",
            latex=f"results/tables/{benchmark}_differences.tex",
            html=report(
                f"results/tables/{benchmark}_differences.html",
                caption="../report/differences.rst",
                category="Results",
                labels={"benchmark": benchmark.replace("_", " "), "kind": "differences"},
            ),
        log:
            f"results/logs/differences/{benchmark}.log",
        benchmark:
            f"results/benchmarks/differences/{benchmark}.tsv"
        conda:
            "../environment.yml"
        threads: 1
        resources:
            mem_mb=1000,
        params:
            code=plan.step_code("differences", f"evaluation/{benchmark}"),
            titles=summary.titles,
            rows=summary.metric_rows(benchmark),
            comparisons=plan.run["comparisons"],
            recipes=hidden(summary.metric_recipes, benchmark=benchmark),
        script:
            "../workflow_scripts/differences.py"


rule training_curve:
    """Plot loss and validation score over the step, for all training runs on a split."""
    input:
        unpack(of(summary.training_curve_inputs)),
    output:
        svg=report(
            "results/figures/{split}/training_curve.svg",
            caption="../report/training_curve.rst",
            category="Training",
            labels={"split": "{split}", "kind": "figure"},
        ),
        png="results/figures/{split}/training_curve.png",
    log:
        "results/logs/training_curve/{split}.log",
    benchmark:
        "results/benchmarks/training_curve/{split}.tsv"
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        code=plan.step_code("training_curve"),
        titles=summary.titles,
        recipes=hidden(summary.training_recipes),
    script:
        "../workflow_scripts/training_curve.py"


for benchmark, figure in summary.figures:

    rule:
        """Draw a figure of one benchmark on one split."""
        name:
            f"{benchmark}_{figure}"
        input:
            of(summary.figure_inputs, benchmark=benchmark),
        output:
            svg=report(
                f"results/figures/{{split}}/{benchmark}/{figure}.svg",
                caption=f"../report/{figure}.rst",
                category="Results",
                labels={"benchmark": benchmark.replace("_", " "), "kind": figure.replace("_", " ")},
            ),
            png=f"results/figures/{{split}}/{benchmark}/{figure}.png",
        log:
            f"results/logs/{benchmark}_{figure}/{{split}}.log",
        benchmark:
            f"results/benchmarks/{benchmark}_{figure}/{{split}}.tsv"
        conda:
            "../environment.yml"
        threads: 1
        resources:
            mem_mb=1000,
        params:
            code=plan.step_code("figure", f"evaluation/{benchmark}"),
            figure=figure,
            titles=summary.titles,
            rows=of(summary.figure_rows, benchmark=benchmark),
            recipes=hidden(summary.metric_recipes, benchmark=benchmark),
        script:
            "../workflow_scripts/figure.py"


if summary.pictures:

    rule pictures:
        """Visualise the features: similarity of a query patch to other views of it, and features as colours."""
        input:
            **summary.pictures_inputs(),
        output:
            similarity_maps=report(
                f"results/figures/{summary.pictures['split']}/similarity_maps.png",
                caption="../report/similarity_maps.rst",
                category="Pictures",
                labels={"shows": "similarity to a query patch"},
            ),
            pca_colours=report(
                f"results/figures/{summary.pictures['split']}/pca_colours.png",
                caption="../report/pca_colours.rst",
                category="Pictures",
                labels={"shows": "features as colours"},
            ),
            vector=[
                f"results/figures/{summary.pictures['split']}/{name}.svg"
                for name in ("similarity_maps", "pca_colours")
            ],
        log:
            "results/logs/pictures.log",
        benchmark:
            "results/benchmarks/pictures.tsv"
        conda:
            "../environment.yml"
        threads: 1
        resources:
            mem_mb=2000,
        params:
            code=plan.step_code("pictures"),
            titles=summary.mapped_titles,
            views=config["figures"]["views"],
            recipes=hidden(summary.pictures_recipes),
        script:
            "../workflow_scripts/pictures.py"

    rule explorer:
        """Write a page that compares the features of any patch of a scene with those of all other patches."""
        input:
            **summary.pictures_inputs(),
        output:
            report(
                f"results/figures/{summary.pictures['split']}/explorer.html",
                caption="../report/explorer.rst",
                category="Pictures",
                labels={"shows": "explorer: similarity to any patch"},
            ),
        log:
            "results/logs/explorer.log",
        benchmark:
            "results/benchmarks/explorer.tsv"
        conda:
            "../environment.yml"
        threads: 1
        resources:
            mem_mb=4000,
        params:
            code=plan.step_code("explorer"),
            template=summary.explorer_template,
            titles=summary.mapped_titles,
            views=config["figures"]["explorer_views"],
            recipes=hidden(summary.pictures_recipes),
        script:
            "../workflow_scripts/explorer.py"


rule tables:
    """Make all tables of the run."""
    input:
        expand(
            "results/tables/{benchmark}{of}.{kind}",
            benchmark=plan.run["benchmarks"],
            of=["", "_differences"] if plan.run.get("comparisons") else [""],
            kind=["csv", "md", "tex", "html"],
        ),


rule figures:
    """Make all figures of the run."""
    input:
        expand("results/figures/{split}/training_curve.{kind}", split=summary.curve_splits, kind=["svg", "png"]),
        [
            f"results/figures/{split}/{benchmark}/{figure}.{kind}"
            for benchmark, figure in summary.figures
            for split in summary.evaluated_splits(benchmark)
            for kind in ("svg", "png")
        ],
        [rules.pictures.output, rules.explorer.output] if summary.pictures else [],
