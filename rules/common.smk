# No rules: the configuration, the plan of the run, and the values that wildcards may take.
import re
import sys
from functools import partial
from inspect import signature
from operator import attrgetter
from types import SimpleNamespace
from snakemake.exceptions import WorkflowError

from loco import paths
from loco.config import check_files, load
from loco.errors import ConfigError
from loco.plan import Plan
from loco.resources import Resources as JobResources  # Snakemake has a class of the other name
from loco.summary import Summary

try:
    check_files(workflow.configfiles)
    config = load(config, workflow.basedir)
except ConfigError as error:
    raise WorkflowError(str(error)) from None
summary = Summary(plan := Plan(config, workflow.basedir))
resources_of = JobResources(plan)


def of(method, then=lambda value: value, **fixed):
    """Input or params function: a method of the plan, called with those wildcards of the job that it takes."""
    wanted = [name for name in signature(method).parameters if name not in fixed]

    def ask(wildcards):
        try:
            return then(method(**fixed, **{name: wildcards[name] for name in wanted}))
        except Exception as error:  # Snakemake would pass over the rule, and take the outputs that exist for sources
            sys.exit(f"error: {error}")

    return ask


# Params function: the step's own code and settings in a recipe of the plan. Snakemake reruns a job by these.
own = partial(of, then=attrgetter("own"))
# Params function: what `of` gives, as the `value` of an object, which Snakemake does not compare or store.
hidden = partial(of, then=lambda value: SimpleNamespace(value=value))


def memory(method):
    """Resources function: megabytes, by a method of `resources_of`; a job that is started again requests more."""
    wanted = signature(method).parameters
    return lambda wildcards, attempt: attempt * method(**{name: wildcards[name] for name in wanted})


def gpus(method):
    """Resources function: GPUs, by a method of `resources_of` or a number; none where jobs run on a machine without any."""
    wanted = signature(method).parameters if callable(method) else ()

    def ask(wildcards):
        count = method(**{name: wildcards[name] for name in wanted}) if callable(method) else method
        return resources_of.available(count, elsewhere=workflow.non_local_exec)

    return ask


def one_of(names):
    """Regular expression of these names and no others (of nothing, if there are none)."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    ablation=one_of(summary.ablations),
    benchmark=one_of(config["benchmarks"]),
    checkpoint="[^/]+",
    dataset=one_of(config["datasets"]),
    encoder="[0-9a-f]+",
    experiment=one_of(config["experiments"]),
    run="deterministic|seed[0-9]+",
    scene="[^/]+",
    split=one_of(config["splits"]),
    stride="[0-9]+",
