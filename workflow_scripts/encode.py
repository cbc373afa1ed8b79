from pathlib import Path

from loco.logs import step

with step(snakemake.log[0], snakemake.threads):
    from loco.training.encode import encode_scene

    encode_scene(snakemake.params.model, Path(snakemake.input.frames), Path(snakemake.output.encoded))
