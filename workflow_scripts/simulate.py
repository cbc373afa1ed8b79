from pathlib import Path

from loco.logs import step

with step(snakemake.log[0], snakemake.threads):
    from loco.datasets.synthetic import simulate_scene

    simulate_scene(Path(snakemake.output[0]).parent, snakemake.wildcards.scene, snakemake.params.settings)
