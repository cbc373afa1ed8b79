from pathlib import Path

from loco.logs import step

with step(snakemake.log[0], snakemake.threads):
    from loco.results.checks import read_manifests, write_checks

    write_checks(read_manifests(snakemake.input), Path(snakemake.output.csv).with_suffix(""))
