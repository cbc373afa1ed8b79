from pathlib import Path

from loco.logs import job

with job(snakemake.log[0], snakemake.threads):
    from loco.steps.table import run

    params = snakemake.params
    run(params.recipes.value, params.rows, params.titles, Path(snakemake.output.csv), params.get("published"))
