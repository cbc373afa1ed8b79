from pathlib import Path

from loco.logs import job

with job(snakemake.log[0], snakemake.threads):
    from loco.local_files import by_local_path
    from loco.steps.figure import run

    params, files = snakemake.params, list(snakemake.input)
    rows, recipes = (by_local_path(each, params.rows, files) for each in (params.rows, params.recipes.value))
    run(params.figure, recipes, rows, params.titles, Path(snakemake.output.svg))
