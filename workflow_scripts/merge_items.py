from pathlib import Path

from loco.logs import job

with job(snakemake.log[0], snakemake.threads):
    from loco.steps.merge_items import run

    items = [Path(path) for path in snakemake.input]
    run(snakemake.params.recipe, items, Path(snakemake.output.metrics), dict(snakemake.wildcards.items()))
