from pathlib import Path

from loco.logs import step

with step(snakemake.log[0], snakemake.threads):
    from loco.results.metrics import as_rows, read_metrics, require_current
    from loco.results.published import Number, Published
    from loco.results.tables import write_tables

    params = snakemake.params
    metrics = [read_metrics(path) for path in snakemake.input]
    require_current(metrics, params.recipes)
    if rows := params.get("rows"):  # of an ablation
        metrics = as_rows(metrics, rows)
    numbers = [Number(**number) for number in params.get("published", [])]
    published = Published(numbers, params.get("datasets", {}), params.get("methods", {}))
    write_tables(metrics, params.titles, Path(snakemake.output.csv).with_suffix(""), published)
