from loco.logs import step

with step(snakemake.log[0], snakemake.threads):
    from loco.results.checks import read_manifests, require_whole
    from loco.storage import write_text

    manifests = read_manifests(snakemake.input.manifests)
    require_whole(manifests)
    write_text(snakemake.output.whole, f"{len(manifests)} scenes passed their check\n")
