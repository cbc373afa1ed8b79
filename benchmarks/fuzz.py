"""Damaged files of every format, read as the workflow reads them: ``python -m benchmarks.fuzz --mutations 10000``.

Each mutation changes one file of a small valid input. It is determined by the seed, the target and the number of the
mutation. A worker process reads the file with limits on memory and CPU time. The file may be read, or rejected with an
error of this project. A crash of the interpreter, a hang, any other exception, excessive memory, and a control
character in a message are faults. The exit status is 1 if there is a fault, and each is printed with the options that
reproduce it.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
import zipfile
from collections import Counter
from contextlib import suppress
from pathlib import Path

from benchmarks.fuzz_targets import BROKEN, ROOT, TARGETS, Target

MEMORY = 1 << 30  # bytes in addition to the memory of a worker before it reads anything
EXTREME = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, (1 << 63) - 1, (1 << 64) - 1)
WORDS = (
    *(b"nan", b"-1.#IND", b"inf", b"1e308", b"-1", b"0", b"99999999999999999999", b"9" * 5000, b"1_0", b"0x10"),
    *(b"", b"../../x", b"/etc/passwd", b"a b", b"\xef\xbb\xbf", b"\xff\xfe", b"\x1b[2J", b"\r\n", b"[" * 3000, b"{x}"),
)


# --- mutations -------------------------------------------------------------------------------------------------------


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Change a few bytes, numbers or lines, or a member of a zip; sometimes renew the content id of the file."""
    if data.startswith(b"PK\x03\x04") and rng.random() < 0.5:
        return _in_member(data, rng)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        data = _once(data, rng)
    return data


def _once(data: bytes, rng: random.Random) -> bytes:
    at, size = rng.randrange(len(data) + 1), rng.randrange(1, 9)
    match rng.randrange(9):
        case 0 if at < len(data):
            return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        case 1:
            return data[:at] + rng.randbytes(size) + data[at:]
        case 2:
            return data[:at] + data[at + size :]
        case 3:
            return data[:at] + data[at : at + 200] + data[at:]
        case 4:
            width = rng.choice((1, 2, 4, 8))
            number = rng.choice(EXTREME) & (1 << 8 * width) - 1
            return data[:at] + number.to_bytes(width, rng.choice(("little", "big"))) + data[at + width :]
        case 5:
            return data[:at]
        case 6:  # replace a number or a word of a text
            words = list(re.finditer(rb"[-+.\w]+", data[:4096]))
            if words:
                word = rng.choice(words)
                return data[: word.start()] + rng.choice(WORDS) + data[word.end() :]
        case 7:  # lines of a text
            lines = data.split(b"\n")
            k = rng.randrange(len(lines))
            lines[k : k + 1] = [[], [lines[k]] * 2, [rng.choice(WORDS)]][rng.randrange(3)]
            return b"\n".join(lines)
    return data[:at] + rng.choice((b"\0", b"\xff", b"9", b" ")) * size + data[at + size :]


def _in_member(data: bytes, rng: random.Random) -> bytes:
    """Change a member of a zip, its name or its compression, in an otherwise intact zip."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    chosen = rng.choice(sorted(members))
    content = _once(members.pop(chosen), rng)
    name = rng.choice((chosen, chosen, chosen, f"__MACOSX/{chosen}", ".", "../x", "/x", "a\x1b[2J"))
    written = io.BytesIO()
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    with zipfile.ZipFile(written, "w", method) as archive:
        for key, value in {**members, name: content}.items():
            archive.writestr(key, value)
    return written.getvalue()


def reseal(file: Path) -> None:
    """Renew the content id of a file that contains one, so that its reader reads the damaged content."""
    from loco.storage.content_id import BLANK, HEAD, seal

    data = file.read_bytes()
    found = re.search(rb"content_id\W{1,8}([0-9a-f]{64})", data[:HEAD])
    if found and found.end() <= HEAD:
        file.write_bytes(data[: found.start(1)] + BLANK.encode() + data[found.end(1) :])
        with suppress(ValueError):  # the bytes around the id are damaged, so it cannot be renewed
            seal(file)


# --- the worker: one process, many mutations -------------------------------------------------------------------------


def work(name: str, target: Target, seed: int, first: int, last: int, seconds: float) -> None:
    """Read mutations ``first`` to ``last`` - 1 of a target.

    The number of each mutation is written to standard output before it is read, and its outcome afterwards.
    """
    from loco.errors import LocoError

    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "raw")
        files = {file: file.read_bytes() for file in target.write(folder)}
        if target not in BROKEN.values():
            target.read(folder)  # read the intact files, so that the baseline includes all imports
        resource.setrlimit(resource.RLIMIT_AS, (_address_space() + MEMORY,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        baseline = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(first, last):
            rng = random.Random(f"{seed} {name} {number}")
            file = rng.choice(sorted(files))
            file.write_bytes(mutate(files[file], rng))
            if rng.random() < 0.5:
                reseal(file)
            _report(number=number, file=file.name)
            signal.setitimer(signal.ITIMER_PROF, seconds)  # the signal ends the process, even inside C code
            try:
                target.read(folder)
                outcome, text = "read", ""
            except LocoError as error:
                outcome, text = "refused", ""
                if not all(character.isprintable() or character == "\n" for character in str(error)):
                    outcome, text = "FOREIGN", f"control characters: {error!r}"
            except MemoryError:
                outcome, text = "MEMORY", traceback.format_exc(limit=-3)
            except Exception:
                outcome, text = "FOREIGN", traceback.format_exc(limit=-4)
            signal.setitimer(signal.ITIMER_PROF, 0)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - baseline
            _report(number=number, outcome=outcome, text=text, peak=peak)
            file.write_bytes(files[file])


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _report(**facts: object) -> None:
    os.write(1, json.dumps(facts).encode() + b"\n")


# --- the campaign ----------------------------------------------------------------------------------------------------


def campaign(name: str, seed: int, first: int, last: int, seconds: float) -> tuple[Counter[str], int, list[str]]:
    """Read mutations ``first`` to ``last`` - 1 of a target, in a new worker after each crash or hang.

    Returns:
        The number of mutations with each outcome, the peak memory above the baseline in kB, and the faults.
    """
    outcomes: Counter[str] = Counter()
    peak, faults = 0, []
    while first < last:
        command = [
            sys.executable,
            "-m",
            "benchmarks.fuzz",
            "--work",
            name,
            "--seed",
            str(seed),
            "--seconds",
            str(seconds),
        ]
        with tempfile.TemporaryFile() as errors:
            worker = subprocess.run(
                [*command, "--from", str(first), "--to", str(last)], cwd=ROOT, stdout=subprocess.PIPE, stderr=errors
            )
            errors.seek(0)
            message = errors.read()[-2000:].decode(errors="replace")
        begun = None
        for line in worker.stdout.splitlines():
            fact = json.loads(line) if line.startswith(b"{") and line.endswith(b"}") else {}
            if "outcome" not in fact:
                begun = fact.get("number", begun)
                continue
            begun = None
            outcomes[fact["outcome"]] += 1
            peak = max(peak, fact["peak"])
            first = fact["number"] + 1
            if fact["outcome"].isupper():
                faults.append(f"{name} {fact['number']}: {fact['outcome']}\n{fact['text']}")
        if begun is None and worker.returncode:
            raise SystemExit(f"the worker of {name} failed before it read anything:\n{message}")
        if begun is not None:
            outcome = "HANG" if worker.returncode == -signal.SIGPROF else "CRASH"
            outcomes[outcome] += 1
            faults.append(f"{name} {begun}: {outcome} (exit status {worker.returncode})\n{message}")
            first = begun + 1
    return outcomes, peak, faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=1000, help="number of mutations of all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="CPU seconds per mutation; a longer time counts as a hang"
    )
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=[*TARGETS, *BROKEN], metavar="TARGET")
    parser.add_argument("--from", type=int, default=0, dest="first", help="number of the first mutation of each target")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--to", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, (TARGETS | BROKEN)[options.work], options.seed, options.first, options.to, options.seconds)
        return
    each, faults, total, highest = -(-options.mutations // len(options.targets)), [], Counter(), 0
    for name in options.targets:
        outcomes, peak, found = campaign(name, options.seed, options.first, options.first + each, options.seconds)
        counts = ", ".join(f"{outcome}: {count}" for outcome, count in sorted(outcomes.items()))
        print(f"{name:<22} {counts}; peak {peak / 1024:.0f} MB above the baseline", flush=True)
        for fault in found:
            target, number = fault.partition(":")[0].rsplit(" ", 1)
            print(f"  repeat with: --targets '{target}' --from {number} --mutations 1 --seed {options.seed}\n  {fault}")
        faults, total, highest = faults + found, total + outcomes, max(highest, peak)
    counts = ", ".join(f"{outcome}: {count}" for outcome, count in sorted(total.items()))
    print(f"{total.total()} mutations; {counts}; peak {highest / 1024:.0f} MB; {len(faults)} faults")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
