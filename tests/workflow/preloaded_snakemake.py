"""Snakemake commands, forked from a process that has imported Snakemake: each saves the import, 0.9 CPU seconds.

Started as a program, this file is that process. It reads one command per line from standard input, as JSON, and answers
each with its exit code. It does not import ``loco``, so every command imports the copy of its own environment.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path


def run(arguments: Sequence[str], directory: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run ``python -m snakemake`` with these arguments, in this working directory and environment."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / name for name in ("stdout", "stderr")]
        command = {"arguments": arguments, "directory": str(directory), "environment": dict(environment)}
        server = _server()
        print(json.dumps(command | {"outputs": [str(path) for path in outputs]}), file=server.stdin, flush=True)
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess(arguments, code, *(path.read_text() for path in outputs))


@cache
def _server() -> subprocess.Popen[str]:
    """Start the process; it ends with this one, at the end of its standard input."""
    return subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _serve() -> None:
    import snakemake.cli  # noqa: F401 -- what this process is for

    for line in sys.stdin:
        if not (child := os.fork()):
            return _become(**json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(arguments: list[str], directory: str, environment: dict[str, str], outputs: list[str]) -> None:
    """Turn this process into the command."""
    for stream, path in enumerate([os.devnull, *outputs]):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), stream)
    sys.stdin = open(0)  # noqa: SIM115 -- without the lines that the server has read ahead
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:1] = [directory, *environment["PYTHONPATH"].split(os.pathsep)]
    sys.argv[1:] = arguments
    runpy.run_module("snakemake", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _serve()
