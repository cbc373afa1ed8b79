from pathlib import Path

from loco.logs import step

with step(snakemake.log[0], snakemake.threads):
    from loco.training.pca import fit_pca

    names, files = snakemake.wildcards, snakemake.input
    fit_pca(
        snakemake.params.model,
        scenes=list(zip(*(map(Path, part) for part in (files.frames, files.encoded) if part))),
        out=Path(snakemake.output.model),
        seed=int(names.seed),
        whiten=snakemake.params.whiten,
        facts={
            "experiment": names.experiment,
            "split": names.split,
            "data": snakemake.params.data,
            "code": snakemake.params.code,
        },
    )
