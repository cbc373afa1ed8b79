from pathlib import Path

from loco.logs import job

with job(snakemake.log[0], snakemake.threads):
    from loco.steps.evaluate import run

    params = snakemake.params
    scenes = [[path and Path(path) for path in files] for files in params.scenes.value]
    training = [[Path(path) for path in files] for files in params.training.value]
    run(params.recipe, scenes, training, Path(snakemake.output.metrics), dict(snakemake.wildcards.items()))
