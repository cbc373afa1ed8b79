from pathlib import Path

from loco.logs import job

with job(snakemake.log[0], snakemake.threads):
    from loco.steps.label_counts import run

    scenes, categories = (Path(snakemake.output[name]).with_suffix("") for name in ("scenes", "categories"))
    run([Path(path) for path in snakemake.input], snakemake.params.recipes.value, scenes, categories)
