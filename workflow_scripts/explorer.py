from pathlib import Path

from loco.logs import job

with job(snakemake.log[0], snakemake.threads):
    from loco.steps.explorer import run

    params, files = snakemake.params, snakemake.input
    run(
        params.recipes.value,
        Path(files.frames[0]),
        Path(files.correspondences[0]),
        dict(zip(params.titles, map(Path, files.features))),
        params.titles,
        params.views,
        Path(snakemake.output[0]),
    )
