from pathlib import Path

from loco.logs import job

with job(snakemake.log[0], snakemake.threads):
    from loco.steps.encode import run

    run(
        snakemake.params.recipe,
        Path(snakemake.input.frames),
        Path(snakemake.output.encoded),
        [Path(path) for path in snakemake.input.weights],
    )
