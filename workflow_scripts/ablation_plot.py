from pathlib import Path

from loco.logs import step

with step(snakemake.log[0], snakemake.threads):
    from loco.results.metrics import read_metrics, require_current
    from loco.results.plots import ablation_plot

    metrics = [read_metrics(path) for path in snakemake.input]
    require_current(metrics, snakemake.params.recipes)
    stem = Path(snakemake.output.svg).with_suffix("")
    ablation_plot(metrics, snakemake.params.titles, snakemake.params.title, stem)
