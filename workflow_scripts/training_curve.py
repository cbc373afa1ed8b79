from pathlib import Path

from loco.logs import job

with job(snakemake.log[0], snakemake.threads):
    from loco.local_files import by_local_path
    from loco.steps.training_curve import run

    params, files = snakemake.params, snakemake.input
    runs = list(zip(map(Path, files.curves), map(Path, files.models)))
    recipes = by_local_path(params.recipes.value, params.recipes.value, files.models)
    run(recipes, runs, params.titles, Path(snakemake.output.svg))
