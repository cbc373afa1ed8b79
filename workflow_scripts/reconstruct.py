from pathlib import Path

from loco.logs import job

with job(snakemake.log[0], snakemake.threads):
    from loco.steps.reconstruct import run

    params, names = snakemake.params, snakemake.wildcards
    images, out = Path(snakemake.input.images), Path(snakemake.output.scene)
    run(params.recipe, images, out, names.dataset, names.scene, snakemake.threads)
