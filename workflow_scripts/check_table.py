from pathlib import Path

from loco.logs import job

with job(snakemake.log[0], snakemake.threads):
    from loco.steps.check_table import run

    params, out = snakemake.params, snakemake.output
    run([Path(path) for path in snakemake.input], params.recipes.value, params.sizes, Path(out.csv), Path(out.figure))
