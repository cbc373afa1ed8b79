from pathlib import Path

from loco.logs import step

with step(snakemake.log[0], snakemake.threads):
    from loco.provenance import file_fingerprint, settings_fingerprint
    from loco.training import train

    experiment = {"model": snakemake.params.model, "train": snakemake.params.train}
    seed, files = int(snakemake.wildcards.seed), snakemake.input
    facts = {"experiment": snakemake.wildcards.experiment, "split": snakemake.wildcards.split}
    parts = {
        part: [files[f"{part}_{kind}"] for kind in ("frames", "correspondences", "encoded")]
        for part in ("train", "val")
    }
    paths = {part: list(zip(*(map(Path, kind) for kind in kinds if kind))) for part, kinds in parts.items()}
    train(
        experiment,
        **paths,
        out_dir=Path(snakemake.output.model).parent,
        seed=seed,
        state_fingerprint=settings_fingerprint(
            [snakemake.params.code, experiment, seed, [file_fingerprint(file) for file in files]]
        ),
        threads=snakemake.threads,
        facts={**facts, "data": snakemake.params.data, "code": snakemake.params.code},
    )
