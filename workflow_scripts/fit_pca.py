from pathlib import Path

from loco.logs import job

with job(snakemake.log[0], snakemake.threads):
    from loco.steps.fit_pca import run

    files = snakemake.input
    scenes = list(zip(*(map(Path, kind) for kind in (files.frames, files.encoded) if kind)))
    weights = [Path(path) for path in files.weights]
    run(snakemake.params.recipe, scenes, Path(snakemake.output.model), dict(snakemake.wildcards.items()), weights)
