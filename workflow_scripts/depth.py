import json
from pathlib import Path

from loco.logs import step

with step(snakemake.log[0], snakemake.threads):
    from loco.datasets.prepare import prepare_frames

    prepare_frames(
        format=snakemake.params.format,
        raw=Path(snakemake.params.raw),
        scene=snakemake.wildcards.scene,
        manifest=json.loads(Path(snakemake.input.manifest).read_text(encoding="utf-8")),
        out=Path(snakemake.output.frames),
        dataset=snakemake.wildcards.dataset,
        settings=snakemake.params.settings,
        fused=Path(snakemake.input.fused) if snakemake.input.fused else None,
        threads=snakemake.threads,
    )
