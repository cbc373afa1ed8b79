from pathlib import Path

from loco.logs import step

with step(snakemake.log[0], snakemake.threads):
    from loco.datasets import check_scene
    from loco.storage import write_json

    settings = snakemake.params.settings
    scene = snakemake.wildcards.scene
    manifest = check_scene(snakemake.params.format, Path(snakemake.params.raw), scene, settings["decode"])
    write_json(snakemake.output.manifest, manifest)
