from pathlib import Path

from loco.logs import step

with step(snakemake.log[0], snakemake.threads):
    from loco.datasets.labels import label_scene

    label_scene(
        format=snakemake.params.format,
        raw=Path(snakemake.params.raw),
        scene=snakemake.wildcards.scene,
        frames_path=Path(snakemake.input.frames),
        mapping=Path(snakemake.input.mapping),
        out=Path(snakemake.output.labels),
        threads=snakemake.threads,
    )
