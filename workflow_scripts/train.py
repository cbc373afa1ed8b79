from pathlib import Path

from loco.logs import job

with job(snakemake.log[0], snakemake.threads):
    from loco.steps.train import run

    files = snakemake.input
    kinds = [
        [files[f"{part}_{kind}"] for kind in ("frames", "correspondences", "encoded")] for part in ("train", "val")
    ]
    train_scenes, val_scenes = (list(zip(*(map(Path, kind) for kind in part if kind))) for part in kinds)
    subject = dict(snakemake.wildcards.items())
    weights = [Path(path) for path in files.weights]
    run(
        snakemake.params.recipe,
        train_scenes,
        val_scenes,
        Path(snakemake.output.model),
        subject,
        snakemake.threads,
        weights,
    )
