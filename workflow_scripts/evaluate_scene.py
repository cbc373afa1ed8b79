from pathlib import Path

from loco.logs import job

with job(snakemake.log[0], snakemake.threads):
    from loco.steps.evaluate_scene import run

    params, files = snakemake.params, snakemake.input
    scene = [files.get(kind) for kind in ("frames", "correspondences", "features", "labels")]
    run(
        params.recipe,
        [Path(path) if path else None for path in scene],
        Path(snakemake.output.scene_items),
        dict(snakemake.wildcards.items()),
    )
