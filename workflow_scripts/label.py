from pathlib import Path

from loco.logs import job

with job(snakemake.log[0], snakemake.threads):
    from loco.local_files import raw_folder
    from loco.steps.label import run

    params, files = snakemake.params, snakemake.input
    run(
        params.recipe,
        Path(files.frames),
        Path(files.manifest),
        raw_folder(params.raw, snakemake.input.raw),
        Path(files.mapping),
        Path(snakemake.output.labels),
        snakemake.wildcards.scene,
        threads=snakemake.threads,
    )
