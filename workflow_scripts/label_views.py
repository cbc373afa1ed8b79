from pathlib import Path

from loco.logs import step

with step(snakemake.log[0], snakemake.threads):
    from loco.results.label_views import label_views
    from loco.storage import Frames, Labels

    with Frames(snakemake.input.frames) as frames, Labels(snakemake.input.labels) as labels:
        label_views(frames, labels, Path(snakemake.output.svg).with_suffix(""), n=snakemake.params.views)
