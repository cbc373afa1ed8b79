from pathlib import Path

from loco.logs import job

with job(snakemake.log[0], snakemake.threads):
    from loco.local_files import raw_folder
    from loco.steps.frames import run

    params, names, files = snakemake.params, snakemake.wildcards, snakemake.input
    run(
        params.recipe,
        Path(files.manifest),
        raw_folder(params.raw, snakemake.input.raw),
        Path(snakemake.output.frames),
        names.dataset,
        names.scene,
        mesh_path=Path(files.mesh) if files.mesh else None,
        threads=snakemake.threads,
    )
