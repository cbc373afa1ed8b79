rule correspondence:
    """Compute the 3D points of the patches of a scene's frames, `stride` pixels wide, and the overlap of the frames."""
    input:
        frames=paths.FRAMES,
    output:
        correspondences=paths.CORRESPONDENCES,
    log:
        "results/logs/correspondence/{dataset}/stride{stride}/{scene}.log",
    benchmark:
        "results/benchmarks/correspondence/{dataset}/stride{stride}/{scene}.tsv"
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=requested(resources_of.correspondence_mb),
        runtime=requested(resources_of.correspondence_minutes),
    params:
        own=own(plan.correspondence_recipe),
        recipe=of(plan.correspondence_recipe),
    script:
        "../workflow_scripts/correspondence.py"
