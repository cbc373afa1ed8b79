from pathlib import Path

from loco.logs import job

with job(snakemake.log[0], snakemake.threads):
    from loco.steps.ablation_plot import run

    params = snakemake.params
    run(params.recipes.value, params.rows, params.titles, params.title, Path(snakemake.output.svg))
