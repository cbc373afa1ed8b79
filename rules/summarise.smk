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


rule recall_against_angle:
    """Recall of pixel correspondences against the rotation between the two cameras."""
    input:
        expand(
            rules.evaluate.output.metrics,
            benchmark="pixel_correspondence",
            experiment=RUN["experiments"],
            seed=RUN["seeds"],
            allow_missing=True,
        ),
    output:
        svg=report(
            "results/figures/{split}/recall_against_angle.svg",
            caption="../report/recall_against_angle.rst",
            category="Results",
            labels={"benchmark": "pixel correspondence", "kind": "figure"},
        ),
        png="results/figures/{split}/recall_against_angle.png",
    log:
        "results/logs/recall_against_angle/{split}.log",
    benchmark:
        "results/benchmarks/recall_against_angle/{split}.tsv"
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        code=code("recall_against_angle"),
        titles=TITLES,
    script:
        "../workflow_scripts/recall_against_angle.py"


rule location_consistency_dots:
    """Location-consistency mAP of all experiments with its confidence intervals."""
    input:
        expand(
            rules.evaluate.output.metrics,
            benchmark="location_consistency",
            experiment=RUN["experiments"],
            seed=RUN["seeds"],
            allow_missing=True,
        ),
    output:
        svg=report(
            "results/figures/{split}/location_consistency_dots.svg",
            caption="../report/location_consistency_figure.rst",
            category="Results",
            labels={"benchmark": "location consistency", "kind": "figure"},
        ),
        png="results/figures/{split}/location_consistency_dots.png",
    log:
        "results/logs/location_consistency_dots/{split}.log",
    benchmark:
        "results/benchmarks/location_consistency_dots/{split}.tsv"
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        code=code("location_consistency_dots"),
        titles=TITLES,
    script:
        "../workflow_scripts/location_consistency_dots.py"


rule pictures:
    """What the features do: similarity of a query patch to other views of its place, and features as colours."""
    input:
        frames=expand(rules.depth.output.frames, **PICTURES),
        correspondences=expand(
            rules.correspondence.output.correspondences, **PICTURES, stride=patch_stride(PICTURES["dataset"])
        ),
        features=expand(rules.extract.output.features, experiment=RUN["experiments"], seed=RUN["seeds"][0], **PICTURES),
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
        expand("results/figures/{split}/training_curve.svg", split=RUN["splits"] if TRAINED else []),
        expand(
            "results/figures/{split}/{name}.svg",
            split=RUN["splits"],
            name=[FIGURES[benchmark] for benchmark in RUN["benchmarks"]],
        ),
        rules.pictures.output,
