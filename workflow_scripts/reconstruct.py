from pathlib import Path

from loco.logs import step

with step(snakemake.log[0], snakemake.threads):
    from loco.datasets.reconstruct import reconstruct

    images, out = Path(snakemake.input.images), Path(snakemake.output.scene)
    reconstruct(images, out, snakemake.params.settings, snakemake.threads)
