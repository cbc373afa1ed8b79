from pathlib import Path

from loco.logs import step

with step(snakemake.log[0], snakemake.threads):
    from loco.provenance import file_fingerprint, settings_fingerprint
    from loco.training import train

    experiment = {"model": snakemake.params.model, "train": snakemake.params.train}
    seed, files = int(snakemake.wildcards.seed), snakemake.input
    train(
        experiment,
        train=[(Path(f), Path(c)) for f, c in zip(files.train_frames, files.train_correspondences)],
        val=[(Path(f), Path(c)) for f, c in zip(files.val_frames, files.val_correspondences)],
        out_dir=Path(snakemake.output.model).parent,
        seed=seed,
        state_fingerprint=settings_fingerprint(
            [snakemake.params.code, experiment, seed, [file_fingerprint(file) for file in files]]
        ),
        threads=snakemake.threads,
    )
