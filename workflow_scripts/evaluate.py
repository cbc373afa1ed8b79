from contextlib import ExitStack
from importlib import import_module

from loco.logs import step

with step(snakemake.log[0], snakemake.threads), ExitStack() as stack:
    from loco.evaluation.result import EvaluatedScene
    from loco.provenance import passport
    from loco.results.metrics import write_metrics
    from loco.storage import Correspondences, Features, Frames, Labels

    files, settings, seed = snakemake.input, snakemake.params.settings, int(snakemake.wildcards.seed)

    def opened(kind, paths):
        found = [stack.enter_context(kind(path)) for path in paths]
        return {(file.dataset, file.scene): file for file in found}

    frames, features = opened(Frames, files.frames), opened(Features, files.features)
    correspondences, labels = opened(Correspondences, files.correspondences), opened(Labels, files.labels)
    scenes = [
        EvaluatedScene(frames[place], correspondences.get(place), features[place], labels.get(place))
        for place in frames
    ]
    # The same questions for every experiment and seed of training: the evaluation keeps its own seed.
    evaluation = import_module(f"loco.evaluation.{snakemake.wildcards.benchmark}").evaluate(scenes, settings)
    write_metrics(
        snakemake.output.metrics,
        benchmark=snakemake.wildcards.benchmark,
        split=snakemake.wildcards.split,
        experiment=snakemake.wildcards.experiment,
        seed=seed,
        settings=settings,
        passport=passport(**snakemake.params.recipe, inputs={file: file for file in files}, seed=seed),
        evaluation=evaluation,
    )
