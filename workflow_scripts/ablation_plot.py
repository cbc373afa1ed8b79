from pathlib import Path

from loco.logs import step

with step(snakemake.log[0], snakemake.threads):
    from loco.results.metrics import as_rows, read_metrics, require_current
    from loco.results.plots import ablation_plot

    metrics = [read_metrics(path) for path in snakemake.input]
    require_current(metrics, snakemake.params.recipes)
    stem = Path(snakemake.output.svg).with_suffix("")
    metrics = as_rows(metrics, snakemake.params.rows)
    ablation_plot(metrics, snakemake.params.titles, snakemake.params.title, stem)
