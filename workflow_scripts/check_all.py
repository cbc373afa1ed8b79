from pathlib import Path

from loco.logs import job

with job(snakemake.log[0], snakemake.threads):
    from loco.steps.check_all import run

    recipes = snakemake.params.recipes.value
    run([Path(path) for path in snakemake.input.manifests], recipes, Path(snakemake.output.passed))
