from pathlib import Path

from loco.logs import job

with job(snakemake.log[0], snakemake.threads):
    from loco.steps.correspondence import run

    frames, out = Path(snakemake.input.frames), Path(snakemake.output.correspondences)
    run(snakemake.params.recipe, frames, out, snakemake.threads)
