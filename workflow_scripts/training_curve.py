from pathlib import Path

from loco.logs import step

with step(snakemake.log[0], snakemake.threads):
    from loco.results.plots import training_curve

    curves: dict[str, list[Path]] = {}
    for path in map(Path, snakemake.input):
        experiment = path.parent.parent.name
        curves.setdefault(experiment, []).append(path)
    training_curve(curves, snakemake.params.titles, Path(snakemake.output.svg).with_suffix(""))
