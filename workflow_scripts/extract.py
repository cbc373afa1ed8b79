from pathlib import Path

from loco.logs import job

with job(snakemake.log[0], snakemake.threads):
    from loco.steps.extract import run

    files = snakemake.input
    run(
        snakemake.params.recipe,
        Path(files.frames),
        Path(snakemake.output.features),
        checkpoint=Path(files.checkpoint) if files.checkpoint else None,
        encoded_path=Path(*files.encoded) if files.encoded else None,
        weights=[Path(path) for path in files.weights],
    )
