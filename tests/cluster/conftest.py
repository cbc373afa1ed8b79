"""The tiny workflow on a SLURM cluster of its own; left out where SLURM is not installed or the user is not root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cluster.slurm import Cluster, missing_programs, running_cluster
from tests.workflow.conftest import ROOT, World, edit

PROFILE = ("--workflow-profile", "profiles/slurm")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster, which every command of the tests uses."""
    if missing := missing_programs():
        pytest.skip(f"SLURM is not installed ({', '.join(missing)} missing); `make test-cluster` installs it")
    if os.getuid() != 0:
        pytest.skip("the daemons of SLURM start only as root")
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        try:
            running = stack.enter_context(running_cluster(tmp_path_factory.mktemp("slurm")))
        except (OSError, TimeoutError) as error:  # a container may not allow what the daemons do
            pytest.skip(f"the daemons of SLURM do not start on this machine: {error}")
        for name in ("SLURM_CONF", "PATH"):
            patch.setenv(name, running.environment[name])
        yield running


def on_the_cluster(root: Path) -> World:
    """A new world whose profile is changed as docs/clusters.md states for a site without accounting."""
    world = World.new(root)
    profile = world.workflow / "profiles/slurm/profile.yaml"
    edit(profile, "slurm-efficiency-report: true", "slurm-no-account: true\nslurm-status-command: squeue")
    edit(profile, "latency-wait: 60", "latency-wait: 60\nslurm-init-seconds-before-status-checks: 2")
    assert ROOT not in profile.parents
    return world
