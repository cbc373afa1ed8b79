from pathlib import Path

from loco.logs import job

with job(snakemake.log[0], snakemake.threads):
    from loco.local_files import by_local_path
    from loco.steps.differences import run

    params, files = snakemake.params, list(snakemake.input)
    rows, recipes = (by_local_path(each, params.rows, files) for each in (params.rows, params.recipes.value))
    run(recipes, rows, params.titles, params.comparisons, Path(snakemake.output.csv))
