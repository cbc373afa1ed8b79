from pathlib import Path

from loco.logs import job

with job(snakemake.log[0], snakemake.threads):
    from loco.steps.fuse import run

    params, names = snakemake.params, snakemake.wildcards
    manifest, out = Path(snakemake.input.manifest), Path(snakemake.output.mesh)
    run(params.recipe, manifest, Path(params.raw), out, names.dataset, names.scene)
