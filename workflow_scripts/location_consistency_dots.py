from pathlib import Path

from loco.logs import step

with step(snakemake.log[0], snakemake.threads):
    from loco.results.figures import location_consistency_dots
    from loco.results.metrics import read_metrics

    metrics = [read_metrics(path) for path in snakemake.input]
    location_consistency_dots(metrics, snakemake.params.titles, Path(snakemake.output.svg).with_suffix(""))
