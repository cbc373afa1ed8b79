import json
from pathlib import Path

from loco.logs import step

with step(snakemake.log[0], snakemake.threads):
    from loco.results.checks import require_whole, write_checks

    paths = map(Path, snakemake.input)
    manifests = {(path.parent.name, path.stem): json.loads(path.read_text(encoding="utf-8")) for path in paths}
    write_checks(manifests, Path(snakemake.output.csv).with_suffix(""))
    require_whole(manifests)
