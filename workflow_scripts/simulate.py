from pathlib import Path

from loco.logs import job

with job(snakemake.log[0], snakemake.threads):
    from loco.steps.simulate import run

    params, names = snakemake.params, snakemake.wildcards
    run(params.recipe, Path(snakemake.output.scene), names.dataset, names.scene)
