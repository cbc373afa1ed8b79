from pathlib import Path

from loco.logs import step

with step(snakemake.log[0], snakemake.threads):
    from loco.results.metrics import read_metrics, require_current
    from loco.results.tables import write_differences

    metrics = [read_metrics(path) for path in snakemake.input]
    require_current(metrics, snakemake.params.recipes)
    stem = Path(snakemake.output.csv).with_suffix("")
    write_differences(metrics, snakemake.params.titles, snakemake.params.comparisons, stem)
