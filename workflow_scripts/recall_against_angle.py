from pathlib import Path

from loco.logs import step

with step(snakemake.log[0], snakemake.threads):
    from loco.results.figures import recall_against_angle
    from loco.results.metrics import read_metrics

    metrics = [read_metrics(path) for path in snakemake.input]
    recall_against_angle(metrics, snakemake.params.titles, Path(snakemake.output.svg).with_suffix(""))
