from pathlib import Path

from loco.logs import job

with job(snakemake.log[0], snakemake.threads):
    from loco.steps.label_views import run

    params, files, out = snakemake.params, snakemake.input, Path(snakemake.output.svg)
    run(params.frames, params.labels, Path(files.frames), Path(files.labels), out.with_suffix(""), params.views)
