from pathlib import Path

from loco.logs import job

with job(snakemake.log[0], snakemake.threads):
    from loco.steps.training_curve import run

    params, files = snakemake.params, snakemake.input
    runs = list(zip(map(Path, files.curves), map(Path, files.models)))
    run(params.recipes.value, runs, params.titles, Path(snakemake.output.svg))
