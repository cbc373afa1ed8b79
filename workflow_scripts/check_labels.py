from pathlib import Path

from loco.logs import job

with job(snakemake.log[0], snakemake.threads):
    from loco.steps.check_labels import run

    params, names = snakemake.params, snakemake.wildcards
    run(params.recipe, Path(params.raw), Path(snakemake.output.manifest), names.dataset, names.scene)
