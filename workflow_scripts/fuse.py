from pathlib import Path

from loco.logs import job

with job(snakemake.log[0], snakemake.threads):
    from loco.local_files import raw_folder
    from loco.steps.fuse import run

    params, names = snakemake.params, snakemake.wildcards
    manifest, out = Path(snakemake.input.manifest), Path(snakemake.output.mesh)
    run(params.recipe, manifest, raw_folder(params.raw, snakemake.input.raw), out, names.dataset, names.scene)
