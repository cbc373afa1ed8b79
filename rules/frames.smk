rule frames:
    """Prepare colour and depth at one size, with holes filled from the mesh. Rejects scenes that failed the check."""
    input:
        unpack(of(plan.frames_inputs)),
        # The manifest contains a digest of the raw files, so that a new time stamp alone causes no rerun.
        raw=ancient(of(plan.raw_files, then=in_place)),
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
        mem_mb=requested(resources_of.frames_mb),
        runtime=requested(resources_of.frames_minutes),
    params:
        own=own(plan.frames_recipe),
        recipe=of(plan.frames_recipe),
        raw=lambda wildcards: config["datasets"][wildcards.dataset]["raw"],
    script:
        "../workflow_scripts/frames.py"
