from pathlib import Path

from loco.logs import step

with step(snakemake.log[0], snakemake.threads):
    from loco.results.metrics import read_metrics, require_current
    from loco.results.tables import write_tables

    metrics = [read_metrics(path) for path in snakemake.input]
    require_current(metrics, snakemake.params.recipes)
    write_tables(metrics, snakemake.params.titles, Path(snakemake.output.csv).with_suffix(""))
