from pathlib import Path

from loco.logs import job

with job(snakemake.log[0], snakemake.threads):
    from loco.local_files import raw_folder
    from loco.steps.check_scene import run

    params, names = snakemake.params, snakemake.wildcards
    run(
        params.recipe,
        raw_folder(params.raw, snakemake.input.raw),
        Path(snakemake.output.manifest),
        names.dataset,
        names.scene,
    )
