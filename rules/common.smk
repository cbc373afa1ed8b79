# The configuration, the plan of the run, and the allowed values of wildcards. It defines no rules.
import re
import sys
from functools import partial
from inspect import signature
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace
from snakemake.exceptions import WorkflowError

from loco import paths
from loco.config import layers, load, merge_layers
from loco.config_layers import DEFAULTS
from loco.devices import gpus_granted_by_slurm
from loco.errors import ConfigError
from loco.evaluation.catalogue import BENCHMARKS
from loco.plan import Plan
from loco.resources import JobResources
from loco.summary import Summary

try:
    files = layers(workflow.overwrite_configfiles, workflow.basedir)
    # Snakemake shows these files in its report, and copies them to machines without a shared file system.
    workflow.configfiles[:] = [Path(workflow.basedir, DEFAULTS), *files]
    config = load(merge_layers(files, workflow.config_settings.config), workflow.basedir)
except ConfigError as error:
    raise WorkflowError(str(error)) from None
summary = Summary(plan := Plan(config, workflow.basedir))
resources_of = JobResources(plan)


if "container" in plan.run:

    container: plan.run["container"]


def of(method, then=lambda value: value, **fixed):
    """Return an input or params function that calls a method of the plan with the wildcards that are its parameters."""
    wanted = [name for name in signature(method).parameters if name not in fixed]

    def ask(wildcards):
        try:
            return then(method(**fixed, **{name: wildcards[name] for name in wanted}))
        except Exception as error:  # Snakemake would skip the rule, and treat its existing outputs as sources
            sys.exit(f"error: {error}")

    return ask


# Params function: code and settings of the step, from a recipe of the plan. Snakemake reruns a job if they change.
own = partial(of, then=attrgetter("own"))
# Params function: the result of `of` as the `value` of an object, which Snakemake neither compares nor stores.
hidden = partial(of, then=lambda value: SimpleNamespace(value=value))


def requested(method):
    """Return a resources function of megabytes or minutes, from a method of `resources_of`; restarted jobs request
    more."""
    wanted = signature(method).parameters
    return lambda wildcards, attempt: attempt * method(**{name: wildcards[name] for name in wanted})


def in_place(files):
    """Mark the files that users provide (raw data, weights, tables of labels) as local. Only files that the workflow makes
    are on the storage provider."""
    if isinstance(files, dict):
        return {
            role: in_place(named) if role in ("weights", "init", "images") else named for role, named in files.items()
        }
    if isinstance(files, list):
        return [in_place(file) for file in files]
    return files if Path(files).is_relative_to("results") else local(files)


def gpus_are_granted():
    """Return whether the scheduler of a cluster grants GPUs to jobs; None if jobs run on this machine.

    A SLURM job runs Snakemake again for its steps, which then request the GPUs that the job was granted. On a cluster
    without GPUs, set the limit to 0 by `resources: gpu: 0` in the profile.
    """
    if workflow.local_exec:
        return None
    if workflow.remote_exec:
        return gpus_granted_by_slurm()
    return workflow.global_resources["gpu"].value != 0 if "gpu" in workflow.global_resources else True


def gpus(method):
    """Return a resources function of GPUs, from a method of `resources_of` or a number; 0 if there are none."""
    wanted = signature(method).parameters if callable(method) else ()

    def ask(wildcards):
        count = method(**{name: wildcards[name] for name in wanted}) if callable(method) else method
        return resources_of.available(count, granted=gpus_are_granted())

    return ask


def one_of(names):
    """Return a regular expression that matches exactly these names (nothing, if there are none)."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    ablation=one_of(summary.ablations),
    benchmark=one_of(config["benchmarks"]),
    checkpoint="[^/]+",
    dataset=one_of(config["datasets"]),
    encoder="[0-9a-f]+",
    experiment=one_of(config["experiments"]),
    radius="[0-9.e+-]+",
    run="deterministic|seed[0-9]+",
    scene="[^/]+",
    split=one_of(config["splits"]),
    stride="[0-9]+",
