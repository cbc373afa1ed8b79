from pathlib import Path

from loco.logs import job

with job(snakemake.log[0], snakemake.threads):
    from loco.steps.differences import run

    params, out = snakemake.params, Path(snakemake.output.csv)
    run(params.recipes.value, params.rows, params.titles, params.comparisons, out)
