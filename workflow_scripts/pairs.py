from pathlib import Path

from loco.logs import job

with job(snakemake.log[0], snakemake.threads):
    from loco.steps.pairs import run

    run(snakemake.params.recipe, Path(snakemake.input.correspondences), Path(snakemake.output.pairs))
