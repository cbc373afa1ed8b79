from pathlib import Path

from loco.logs import step

with step(snakemake.log[0], snakemake.threads):
    from loco.results.pictures import pca_colours, similarity_maps
    from loco.results.views import choose_views, feature_maps
    from loco.storage import Correspondences, Features, Frames

    titles, output = snakemake.params.titles, snakemake.output
    with Frames(snakemake.input.frames[0]) as frames, Correspondences(snakemake.input.correspondences[0]) as patches:
        views, query = choose_views(patches, frames, n=snakemake.params.views)
        maps = {}
        for experiment, path in zip(titles, snakemake.input.features):
            with Features(path) as features:
                features.require_frames(frames)
                maps[experiment] = feature_maps(features, views)
    similarity_maps(views, query, maps, titles, Path(output.similarity_maps).with_suffix(""))
    pca_colours(views, maps, titles, Path(output.pca_colours).with_suffix(""))
