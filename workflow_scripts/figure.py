from pathlib import Path

from loco.logs import step

with step(snakemake.log[0], snakemake.threads):
    from loco.results import plots
    from loco.results.metrics import read_metrics, require_current

    metrics = [read_metrics(path) for path in snakemake.input]
    require_current(metrics, snakemake.params.recipes)
    draw = getattr(plots, snakemake.params.figure)
    draw(metrics, snakemake.params.titles, Path(snakemake.output.svg).with_suffix(""))
