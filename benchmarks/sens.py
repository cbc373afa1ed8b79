"""Peak memory and time per frame of streaming .sens files of increasing length, and the time of a random frame.

``python -m benchmarks.sens`` (Linux) writes files with images of ScanNet's sizes to a temporary folder and prints a
table.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np

from loco.datasets.sens import SensFile, SensHeader

LENGTHS = (0, 50, 150, 450)  # numbers of frames; the first shows the memory of the process itself
COLOR, DEPTH = (968, 1296), (480, 640)
STOCK = 8  # number of different frames
ASKED = 40  # frames read in random order


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'frames':>8} {'file MB':>8} {'peak MB':>8} {'ms / frame':>10}")
        for length in LENGTHS:
            path = Path(folder) / "scan.sens"
            write_file(path, length)
            # A new process, so that only its memory is measured.
            command = [sys.executable, "-m", "benchmarks.sens", str(path)]
            peak, seconds = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            print(f"{length:8d} {path.stat().st_size / 1e6:8.1f} {float(peak):8.1f} {1e3 * float(seconds):10.1f}")
        began = perf_counter()
        file = SensFile(path, "scan")
        print(f"opening the last file: {1e3 * (perf_counter() - began):.1f} ms")
        read, decoded = random_access(file)
        print(f"random frame: {1e3 * read:.2f} ms; decoding alone: {1e3 * decoded:.2f} ms")
        print(f"ratio: {read / decoded:.3f}")


def write_file(path: Path, length: int) -> None:
    """Write a .sens file of ``length`` frames: smooth images with noise, which compress about as well as real ones."""
    # Imported here, because the measured process must not load the simulator.
    from loco.simulate.raw_scannet import SensFrame, encode_color, encode_depth, write_sens

    k = np.array([[1170.0, 0, 647.5, 0], [0, 1170, 483.5, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    header = SensHeader("benchmark", k, np.eye(4), k / 2, np.eye(4), "jpeg", "zlib_ushort", COLOR, DEPTH, 1000.0)
    rng = np.random.default_rng(0)
    stock = []
    for _ in range(STOCK):
        rgb = cv2.resize(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8), COLOR[::-1], interpolation=cv2.INTER_CUBIC)
        rgb = np.clip(rgb + rng.normal(0, 3, rgb.shape), 0, 255).astype(np.uint8)
        depth = cv2.resize(rng.uniform(500, 5000, (12, 16)), DEPTH[::-1]) + rng.normal(0, 3, DEPTH)
        color, units = encode_color(rgb, "jpeg"), encode_depth(depth.astype(np.uint16), "zlib_ushort")
        stock.append(SensFrame(np.eye(4), color, units))
    write_sens(path, header, (stock[i % STOCK] for i in range(length)))


def stream(path: Path) -> tuple[float, float]:
    """Read all frames in order; return the peak memory of this process, MB, and seconds per frame."""
    began = perf_counter()
    file = SensFile(path, "scan")
    for k in range(len(file)):
        file.color(k), file.depth(k)
    seconds = (perf_counter() - began) / max(len(file), 1)
    # `ru_maxrss` would include the memory of the parent process when this one was started.
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return peak / 1000, seconds


def random_access(file: SensFile) -> tuple[float, float]:
    """Return the median seconds to read a random frame, and to decode the same bytes from memory."""
    read, decoded = [], []
    for k in np.random.default_rng(1).integers(len(file), size=ASKED).tolist():
        began = perf_counter()
        rgb, units = file.color(k), file.depth(k)
        read.append(perf_counter() - began)
        color, depth = np.frombuffer(file.color_bytes(k), np.uint8), zlib.compress(units.tobytes())
        began = perf_counter()
        same = cv2.cvtColor(cv2.imdecode(color, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        zlib.decompress(depth)
        decoded.append(perf_counter() - began)
        assert np.array_equal(rgb, same)
    return float(np.median(read)), float(np.median(decoded))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(*stream(Path(sys.argv[1])))
    else:
        main()
