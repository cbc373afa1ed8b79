from itertools import chain
from pathlib import Path

from loco.logs import job

with job(snakemake.log[0], snakemake.threads):
    from loco.steps.evaluate import run

    params, files = snakemake.params, snakemake.input
    kinds = [iter(files.get(kind, [])) for kind in ("frames", "correspondences", "features", "labels")]
    scenes = [[path and Path(next(kind)) for path, kind in zip(scene, kinds)] for scene in params.scenes.value]
    seen = dict(zip(dict.fromkeys(chain(*params.training.value)), files.get("training", [])))
    training = [[Path(seen[path]) for path in scene] for scene in params.training.value]
    run(params.recipe, scenes, training, Path(snakemake.output.metrics), dict(snakemake.wildcards.items()))
