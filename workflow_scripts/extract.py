from pathlib import Path

from loco.logs import step

with step(snakemake.log[0], snakemake.threads):
    from loco.evaluation.extract import extract_scene

    checkpoint, encoded = snakemake.input.checkpoint, snakemake.input.encoded
    extract_scene(
        model=snakemake.params.model,
        checkpoint=Path(checkpoint) if checkpoint else None,
        frames_path=Path(snakemake.input.frames),
        out=Path(snakemake.output.features),
        seed=int(snakemake.wildcards.seed),
        encoded_path=Path(*encoded) if encoded else None,
    )
