rule train:
    """Train the network of an experiment on the scenes of a split.

    Its resumable state is not an output, because Snakemake deletes the outputs of a failed job: it is beside them, in a
    folder named after a digest of the recipe and the input files.
    """
    input:
        unpack(of(plan.train_inputs, then=in_place)),
    output:
        model=paths.MODEL,
        curve=paths.CURVE,
    log:
        "results/logs/train/{split}/{experiment}/{run}.log",
    benchmark:
        "results/benchmarks/train/{split}/{experiment}/{run}.tsv"
    wildcard_constraints:
        experiment=one_of(plan.experiments_with("train")),
    priority: 50
    conda:
        "../environment.yml"
    # Per node, 8 for each of its ranks. SLURM takes the number per GPU from `cpus_per_gpu`.
    threads: lambda wildcards: 8 * resources_of.ranks_per_node(wildcards.experiment)
    resources:
        mem_mb=requested(resources_of.train_mb),
        # The job of SLURM has all nodes and GPUs. The step that Snakemake starts in it has the first node.
        gpu=gpus(resources_of.ranks_per_node if workflow.remote_exec else resources_of.train_gpus),
        nodes=lambda wildcards: 1 if workflow.remote_exec else resources_of.train_nodes(wildcards.experiment),
        tasks=lambda wildcards: resources_of.train_tasks(wildcards.experiment, gpus(resources_of.train_gpus)(wildcards)),
        cpus_per_gpu=8,
    params:
        own=own(plan.train_recipe),
        recipe=of(plan.train_recipe),
    script:
        "../workflow_scripts/train.py"


rule fit_pca:
    """Fit the principal components of a backbone's features on the scenes of a split, instead of training a network."""
    input:
        unpack(of(plan.fit_pca_inputs, then=in_place)),
    output:
        model=paths.MODEL,
    log:
        "results/logs/fit_pca/{split}/{experiment}/{run}.log",
    benchmark:
        "results/benchmarks/fit_pca/{split}/{experiment}/{run}.tsv"
    wildcard_constraints:
        experiment=one_of(plan.experiments_with("pca")),
    conda:
        "../environment.yml"
    threads: 2
    resources:
        mem_mb=requested(resources_of.fit_pca_mb),
        runtime=requested(resources_of.fit_pca_minutes),
        gpu=gpus(1),
    params:
        own=own(plan.fit_pca_recipe),
        recipe=of(plan.fit_pca_recipe),
    script:
        "../workflow_scripts/fit_pca.py"
