rule fuse:
    """Fuse the depth images of a scene to a mesh, which fills their holes if the dataset has no mesh."""
    input:
        manifest=paths.MANIFEST,
        raw=ancient(of(plan.raw_files, then=in_place)),
    output:
        mesh=paths.MESH,
    log:
        "results/logs/fuse/{dataset}/{scene}.log",
    benchmark:
        "results/benchmarks/fuse/{dataset}/{scene}.tsv"
    wildcard_constraints:
        dataset=one_of(plan.datasets_with("fuse")),
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=requested(resources_of.fuse_minutes),
    params:
        own=own(plan.fuse_recipe),
        recipe=of(plan.fuse_recipe),
        raw=lambda wildcards: config["datasets"][wildcards.dataset]["raw"],
    script:
        "../workflow_scripts/fuse.py"
