from pathlib import Path

from loco.logs import step

with step(snakemake.log[0], snakemake.threads):
    from loco.datasets import check_scene
    from loco.storage import prepared_bytes, write_json

    params = snakemake.params
    manifest = check_scene(params.format, Path(params.raw), snakemake.wildcards.scene, params.decode)
    images = len(range(manifest["images"])[:: params.frames.get("every", 1)])
    size = (params.frames["height"], params.frames["width"])
    manifest["prepared_bytes"] = prepared_bytes(images, size, params.patches["stride"])
    write_json(snakemake.output.manifest, manifest)
