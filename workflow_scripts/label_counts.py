from pathlib import Path

from loco.logs import step

with step(snakemake.log[0], snakemake.threads):
    from loco.results.label_tables import write_label_tables

    scenes, categories = (Path(snakemake.output[name]).with_suffix("") for name in ("scenes", "categories"))
    write_label_tables([Path(path) for path in snakemake.input], scenes, categories)
