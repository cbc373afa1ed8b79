from pathlib import Path

from loco.logs import job

with job(snakemake.log[0], snakemake.threads):
    from loco.local_files import by_local_path
    from loco.steps.pictures import run

    params, files, out = snakemake.params, snakemake.input, snakemake.output
    features = dict(zip(params.titles, map(Path, files.features)))
    run(
        by_local_path(params.recipes.value, params.recipes.value, list(files)),
        Path(files.frames[0]),
        Path(files.correspondences[0]),
        features,
        params.titles,
        params.views,
        Path(out.similarity_maps),
        Path(out.pca_colours),
    )
