for benchmark in RUN["benchmarks"]:

    rule:
        """Table of one benchmark: a line for each split, experiment, metric and condition, over the seeds.

        Refuses metric files that were not made by the present code and settings: Snakemake may not know, for example
        after `.snakemake/` was deleted.
        """
        name:
            f"table_{benchmark}"
        input:
            metric_files(run_keys(benchmark)),
        output:
            csv=report(
                f"results/tables/{benchmark}.csv",
                caption=f"../report/{benchmark}.rst",
                category="Results",
                labels={"benchmark": benchmark.replace("_", " "), "kind": "table"},
            ),
            markdown=f"results/tables/{benchmark}.md",
            latex=f"results/tables/{benchmark}.tex",
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
            code=code("table"),
            titles=TITLES,
            published=published_numbers(benchmark),
            datasets=published_datasets(benchmark),
            methods={
                name: config["experiments"][name]["published"]
                for name in RUN["experiments"]
                if "published" in config["experiments"][name]
            },
            recipes=recipes(run_keys(benchmark)),
        script:
            "../workflow_scripts/table.py"


for benchmark in RUN["benchmarks"] if "comparisons" in RUN else []:

    rule:
        """Table of how much more an experiment scores than another, item by item."""
        name:
            f"differences_{benchmark}"
        input:
            metric_files(run_keys(benchmark)),
        output:
            csv=report(
                f"results/tables/{benchmark}_differences.csv",
                caption="../report/differences.rst",
                category="Results",
                labels={"benchmark": benchmark.replace("_", " "), "kind": "differences"},
            ),
            markdown=f"results/tables/{benchmark}_differences.md",
            latex=f"results/tables/{benchmark}_differences.tex",
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
            code=code("differences", f"loco/evaluation/{benchmark}.py"),
            titles=TITLES,
            comparisons=RUN["comparisons"],
            recipes=recipes(run_keys(benchmark)),
        script:
            "../workflow_scripts/differences.py"


rule training_curve:
    """Loss and validation score against the step, for all that was trained on a split."""
    input:
        expand(rules.train.output.curve, experiment=TRAINED, seed=RUN["seeds"], allow_missing=True),
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
        code=code("training_curve"),
        titles=TITLES,
    script:
        "../workflow_scripts/training_curve.py"


for benchmark, figure in [(benchmark, figure) for benchmark in RUN["benchmarks"] for figure in FIGURES[benchmark]]:

    rule:
        """A figure of one benchmark on one split."""
        name:
            f"{benchmark}_{figure}"
        input:
            expand(
                rules.evaluate.output.metrics,
                benchmark=benchmark,
                experiment=RUN["experiments"],
                seed=RUN["seeds"],
                allow_missing=True,
            ),
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
            code=code("figure", f"loco/evaluation/{benchmark}.py"),
            figure=figure,
            titles=TITLES,
            recipes=split_recipes(benchmark),
        script:
            "../workflow_scripts/figure.py"


if PICTURES:

    rule pictures:
        """What the features do: similarity of a query patch to other views of its place, and features as colours."""
        input:
            frames=expand(rules.depth.output.frames, **PICTURES),
            correspondences=expand(
                rules.correspondence.output.correspondences, **PICTURES, stride=patch_stride(PICTURES["dataset"])
            ),
            features=expand(
                rules.extract.output.features, experiment=RUN["experiments"], seed=RUN["seeds"][0], **PICTURES
            ),
        output:
            similarity_maps=report(
                f"results/figures/{PICTURES['split']}/similarity_maps.png",
                caption="../report/similarity_maps.rst",
                category="Pictures",
                labels={"shows": "similarity to a query patch"},
            ),
            pca_colours=report(
                f"results/figures/{PICTURES['split']}/pca_colours.png",
                caption="../report/pca_colours.rst",
                category="Pictures",
                labels={"shows": "features as colours"},
            ),
            vector=[f"results/figures/{PICTURES['split']}/{name}.svg" for name in ("similarity_maps", "pca_colours")],
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
            code=code("pictures"),
            titles=TITLES,
            views=config["figures"]["views"],
        script:
            "../workflow_scripts/pictures.py"


rule tables:
    """All tables of the run."""
    input:
        expand("results/tables/{benchmark}.csv", benchmark=RUN["benchmarks"]),
        expand(
            "results/tables/{benchmark}_differences.csv", benchmark=RUN["benchmarks"] if "comparisons" in RUN else []
        ),


rule figures:
    """All figures of the run."""
    input:
        expand("results/figures/{split}/training_curve.svg", split=trained_splits() if TRAINED else []),
        [
            f"results/figures/{split}/{benchmark}/{figure}.svg"
            for benchmark in RUN["benchmarks"]
            for split in judged_splits(config, RUN["splits"], benchmark)
            for figure in FIGURES[benchmark]
        ],
        rules.pictures.output if PICTURES else [],
