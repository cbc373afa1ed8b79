from pathlib import Path

from loco.logs import step

with step(snakemake.log[0], snakemake.threads):
    from loco.geometry.correspond import correspond_scene

    frames, out = Path(snakemake.input.frames), Path(snakemake.output.correspondences)
    stride, tolerance = int(snakemake.wildcards.stride), snakemake.params.tolerance
    correspond_scene(frames, out, {"stride": stride, "overlap_tolerance": tolerance}, snakemake.threads)
