from pathlib import Path

from loco.logs import job

with job(snakemake.log[0], snakemake.threads):
    from loco.steps.figure import run

    params = snakemake.params
    run(params.figure, params.recipes.value, params.rows, params.titles, Path(snakemake.output.svg))
