from pathlib import Path

from loco.logs import job

with job(snakemake.log[0], snakemake.threads):
    from loco.steps.check_table import run

    params = snakemake.params
    run([Path(path) for path in snakemake.input], params.recipes.value, params.sizes, Path(snakemake.output.csv))
