from pathlib import Path

from loco.logs import step

with step(snakemake.log[0], snakemake.threads):
    from loco.geometry.correspond import correspond_scene

    frames, out = Path(snakemake.input.frames), Path(snakemake.output.correspondences)
    correspond_scene(frames, out, snakemake.params.settings, snakemake.threads)
