from pathlib import Path

from loco.logs import step

with step(snakemake.log[0], snakemake.threads):
    from loco.datasets.synthetic import simulate_scene

    simulate_scene(
        snakemake.params.format,
        Path(snakemake.output.scene),
        snakemake.wildcards.scene,
        snakemake.params.settings,
    )
