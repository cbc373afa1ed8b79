import json
from pathlib import Path

from loco.logs import step

with step(snakemake.log[0], snakemake.threads):
    from loco.datasets.fuse import fuse_scene

    fuse_scene(
        format=snakemake.params.format,
        raw=Path(snakemake.params.raw),
        scene=snakemake.wildcards.scene,
        manifest=json.loads(Path(snakemake.input.manifest).read_text(encoding="utf-8")),
        out=Path(snakemake.output.mesh),
        settings=snakemake.params.settings,
    )
