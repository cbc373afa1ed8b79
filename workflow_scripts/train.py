from pathlib import Path

from loco.logs import step

with step(snakemake.log[0], snakemake.threads):
    from loco.provenance import file_fingerprint, settings_fingerprint
    from loco.training import train

    experiment = {"model": snakemake.params.model, "train": snakemake.params.train}
    seed, files = int(snakemake.wildcards.seed), snakemake.input
    facts = {"experiment": snakemake.wildcards.experiment, "split": snakemake.wildcards.split}
    encoded = [files.train_encoded] if files.train_encoded else []
    train(
        experiment,
        train=list(zip(*(map(Path, part) for part in (files.train_frames, files.train_correspondences, *encoded)))),
        val=list(zip(map(Path, files.val_frames), map(Path, files.val_correspondences))),
        out_dir=Path(snakemake.output.model).parent,
        seed=seed,
        state_fingerprint=settings_fingerprint(
            [snakemake.params.code, experiment, seed, [file_fingerprint(file) for file in files]]
        ),
        threads=snakemake.threads,
        facts={**facts, "data": snakemake.params.data, "code": snakemake.params.code},
    )
