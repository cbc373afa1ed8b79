rule frames:
    """Colour and depth of a scene at one size, holes filled from the mesh. Refuses a scene that did not pass its check."""
    input:
        unpack(of(plan.frames_inputs)),
        # The manifest has a digest of the raw files: a time stamp alone must not start all over.
        raw=ancient(of(plan.raw_files)),
    output:
        frames=paths.FRAMES,
    log:
        "results/logs/frames/{dataset}/{scene}.log",
    benchmark:
        "results/benchmarks/frames/{dataset}/{scene}.tsv"
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=memory(resources_of.frames_mb),
    params:
        own=own(plan.frames_recipe),
        recipe=of(plan.frames_recipe),
        raw=lambda wildcards: config["datasets"][wildcards.dataset]["raw"],
    script:
        "../workflow_scripts/frames.py"
