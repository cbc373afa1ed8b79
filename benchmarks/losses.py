"""Time, peak memory and gradient error of the ranking losses over the patches of a simulated room.

Every measurement runs in a separate process, so that its peak memory is that of one loss. Memory is the growth beyond
the inputs and their gradient: on the CPU, of the peak resident set; on a GPU, of the peak allocated memory.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from loco.losses import build_loss
from loco.losses.patches import Patches
from loco.losses.sampled import SampledSmoothAP, draw_pools

GRID = (32, 40)  # rows and columns of the patches of an image
ROOM = (6.0, 5.0, 2.5)  # metres
BOXES = [  # lowest and highest corner of each piece of furniture, metres
    ((0.0, 0.0, 0.0), (0.6, 2.0, 2.0)),
    ((4.0, 4.1, 0.0), (6.0, 5.0, 0.9)),
    ((2.2, 1.8, 0.0), (3.8, 2.8, 0.75)),
    ((5.4, 0.0, 0.0), (6.0, 1.2, 1.4)),
    ((1.5, 4.5, 0.0), (2.5, 5.0, 1.2)),
]
CODE = 64  # dimension of the codes that are rotated to features; at most the dimension of the features
RHO, TAU = 0.2, 0.01
OPTIONS: dict[str, dict[str, Any]] = {  # name in the tables -> options
    "exact": {},
    "per query": {"name": "exact", "ranking": "query"},
    "1,024 queries": {"name": "exact", "ranking": "query", "queries": 1024},
    "sampled": {},  # with the maximum numbers of pairs of LoCo's release
    "info_nce": {"queries": 256, "positives": 128, "negatives": 384, "beta": 0.1},
    "InfoNCE of all": {"name": "info_nce", "queries": None, "tau": 0.07},
    "dense": {},
}
REFERENCE = {"sampled": "exact", "dense": "exact", "1,024 queries": "per query"}  # estimate -> exact loss
DENSE_BYTES = 20  # measured bytes per (positive, pair) of a float32 dense loss with its gradient
MAX_COMPARISONS = 3e9  # comparisons of `dense` in float64, which take a minute
GATHER_ANCHORS = 16


# Inputs ---------------------------------------------------------------------------------------------------------------


def simulate(patches: int, dim: int, rooms: int = 1) -> tuple[Tensor, Tensor]:
    """Return features (n, d) and points (n, 3) of images taken in a room, and in copies of it 7 m apart.

    A feature is a random smooth function of the position plus noise, so that scores overlap as in training. Features of
    any dimension are rotations of the same vectors of CODE numbers, so scores do not depend on the dimension.
    """
    rng = np.random.default_rng(patches // rooms)
    images = [photograph(rng) for _ in range(-(-patches // (GRID[0] * GRID[1] * rooms)))]
    points = [image + np.array([7.0 * room, 0, 0]) for room in range(rooms) for image in images]
    points = np.concatenate(points).astype(np.float32)
    points = torch.from_numpy(points[rng.permutation(len(points))[:patches]])
    generator = torch.Generator().manual_seed(0)
    waves, phase = 3 * torch.randn(3, CODE, generator=generator), 2 * torch.pi * torch.rand(CODE, generator=generator)
    noise = torch.randn(len(points), CODE, generator=generator)
    code = torch.cos(points @ waves + phase).add_(noise, alpha=0.4)
    rotation = torch.linalg.qr(torch.randn(dim, CODE, generator=generator)).Q.T
    return normalize(code @ rotation, dim=1), points


def photograph(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the points that a camera at a random position in the room sees, (GRID[0] * GRID[1], 3)."""
    lows, highs = (np.array(corners) for corners in zip(*BOXES))
    while True:
        place = rng.uniform((0.3, 0.3, 1.2), (ROOM[0] - 0.3, ROOM[1] - 0.3, 1.7))
        if not ((place > lows) & (place < highs)).all(axis=1).any():
            break
    inward = np.arctan2(ROOM[1] / 2 - place[1], ROOM[0] / 2 - place[0])
    yaw, pitch = inward + rng.uniform(-1, 1), rng.uniform(-0.4, 0.1)
    ahead = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0])
    down = np.cross(ahead, right)
    v, u = np.meshgrid(*((np.arange(size) + 0.5 - size / 2) / (GRID[1] / 2) for size in GRID), indexing="ij")
    rays = ahead + 0.75 * (u[..., None] * right + v[..., None] * down)
    return place + first_hit(place, rays.reshape(-1, 3), lows, highs)[:, None] * rays.reshape(-1, 3)


def first_hit(place: NDArray, rays: NDArray, lows: NDArray, highs: NDArray) -> NDArray:
    """Return the distance to the first wall or box along each ray, (m,), in ray lengths, by the slab method."""
    with np.errstate(divide="ignore"):
        walls = (np.where(rays > 0, ROOM, 0.0) - place) / rays
        to_low, to_high = ((corner[:, None] - place) / rays for corner in (lows, highs))  # (boxes, m, 3)
    enter, leave = np.minimum(to_low, to_high).max(axis=2), np.maximum(to_low, to_high).min(axis=2)
    boxes = np.where((enter > 0) & (enter < leave), enter, np.inf)
    return np.minimum(walls.min(axis=1), boxes.min(axis=0))


# One measurement, in a separate process -------------------------------------------------------------------------------


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """Measure the time and the peak memory of a loss, forward and backward.

    The gradient is written to the path ``gradient`` of the task, if there is one.
    """
    torch.set_num_threads(task["threads"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    stored = np.load(task["inputs"])
    features = torch.from_numpy(stored["features"]).to(device, getattr(torch, task["dtype"]))
    points = torch.from_numpy(stored["points"]).to(device)
    del stored
    features.requires_grad_()
    run = runner(task, features, points)
    features.grad = torch.ones_like(features)
    before = fresh_peak(device)
    features.grad = None
    seconds, value, log = timed(run, features, device)
    row = {"s": seconds, "mb": (peak(device) - before) / 1e6, "value": value, **log}
    if path := task.get("gradient"):
        np.save(path, features.grad.to("cpu", torch.promote_types(features.dtype, torch.float32)).numpy())
    if task.get("products"):
        row["products_s"] = time_products(features.detach(), device)
    return row


def runner(task: dict[str, Any], features: Tensor, points: Tensor) -> Callable[[], tuple[Tensor, dict[str, Any]]]:
    if task.get("blocks"):
        return lambda: by_blocks(features, points, task["kappa"])
    options = {"name": task["loss"], "tau": task.get("tau", TAU)} | task["options"]
    criterion = build_loss(rho=RHO, kappa=task["kappa"], normalise=False, **options)
    state = {name: value.clone() for name, value in criterion.state_dict().items()}
    patches = Patches(features, points, torch.zeros(len(features), dtype=torch.int64), torch.arange(len(features)))

    def run() -> tuple[Tensor, dict[str, Any]]:
        criterion.load_state_dict(state)  # so that every call makes the same draws
        return gathered(criterion, patches) if task.get("gathered") else criterion(features, points)

    return run


def by_blocks(features: Tensor, points: Tensor, kappa: float, entries: int = 2**23) -> tuple[Tensor, dict[str, Any]]:
    """Return the dense loss and its log, computed for a few positives at a time.

    It serves batches for which :class:`loco.losses.DenseSmoothAP` does not fit into memory.
    """
    i, j = torch.triu_indices(len(features), len(features), 1, device=features.device)
    distance, scores = (points[i] - points[j]).norm(dim=1), (features @ features.T)[i, j]
    classes = scores[distance <= RHO], scores[(distance > RHO) & (distance <= kappa)]
    s_p, s_n = (each.detach().requires_grad_() for each in classes)
    value = 0.0
    for s_a in s_p.split(max(1, entries // (len(s_p) + len(s_n)))):
        r_p = torch.sigmoid((s_p - s_a[:, None]) / TAU).sum(dim=1) - 0.5
        r_n = torch.sigmoid((s_n - s_a[:, None]) / TAU).sum(dim=1)
        part = (r_n / (1 + r_p + r_n)).sum() / len(s_p)
        part.backward(retain_graph=True)
        value += part.item()
    slopes = ((each - each.detach()) * leaf.grad for each, leaf in zip(classes, (s_p, s_n)))
    return value + sum(slope.sum() for slope in slopes), {"positives": len(s_p), "negatives": len(s_n)}


def gathered(criterion: SampledSmoothAP, patches: Patches) -> tuple[Tensor, dict[str, Any]]:
    """Return the sampled loss in the published form, with the same draws, and an empty log.

    Features are gathered for each (anchor, pair).
    """
    rng = np.random.default_rng([criterion.seed, int(criterion.calls)])
    pairs = draw_pools(patches, criterion.rho, criterion.kappa, criterion.pool, rng)

    def similarity(chosen: Tensor) -> Tensor:
        i, j = chosen.unbind(dim=-1)
        return (patches.features[i] * patches.features[j]).sum(dim=-1)

    with torch.no_grad():
        s_p, s_n = (torch.cat([similarity(c) for c in pool.split(8192)]) for pool in (pairs.positive, pairs.negative))
        draws = criterion.draw(s_p, s_n, pairs, rng)
    s_a = similarity(pairs.positive[draws.anchors])[:, None]
    r_p = draws.positive.rank(similarity(pairs.positive[draws.positive.pairs]) - s_a, criterion.tau)
    r_n = draws.negative.rank(similarity(pairs.negative[draws.negative.pairs]) - s_a, criterion.tau)
    return 1 - ((1 + r_p) / (1 + r_p + r_n)).mean(), {}


def timed(run: Callable, features: Tensor, device: str) -> tuple[float, float, dict[str, Any]]:
    """Return the shortest time of up to five calls with their backward passes, and the last loss and log."""
    times = []
    while not times or (len(times) < 5 and sum(times) < 2):
        features.grad = None
        start = clock(device)
        loss, log = run()
        loss.backward()
        times.append(clock(device) - start)
    return min(times), loss.item(), log


def time_products(features: Tensor, device: str, rows: int = 1024, enough: float = 8.0) -> float:
    """Return the seconds of three products n x n x d by blocks of rows, extrapolated after ``enough`` seconds."""
    out, done, start = torch.zeros_like(features), 0, clock(device)
    for block in features.split(rows):
        product = block @ features.T
        out[done : done + len(block)] += product @ features
        out += product.T @ block
        done += len(block)
        if clock(device) - start > enough:
            break
    return (clock(device) - start) * len(features) / done


def clock(device: str) -> float:
    """Return the wall time in seconds, or, with one thread on a CPU, the CPU time, which other programs affect less."""
    if device == "cuda":
        torch.cuda.synchronize()
    elif torch.get_num_threads() == 1:
        return time.process_time()
    return time.perf_counter()


def fresh_peak(device: str) -> float:
    """Return the current memory of this process, and reset its peak."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # otherwise the peak at the start of the process may persist
    return peak(device)


def peak(device: str) -> float:
    """Return the peak memory of this process, bytes."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    # Not by getrusage, whose ru_maxrss includes the resident set of the parent process.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(status["VmHWM"].split()[0])


# The series -----------------------------------------------------------------------------------------------------------


class Bench:
    """Starts the measurements, omits those that would take too long, and collects the rows."""

    def __init__(self, folder: Path, limit: float, threads: int, dtype: str) -> None:
        self.folder, self.limit, self.threads, self.dtype = folder, limit, threads, dtype
        self.rows: list[dict[str, Any]] = []

    def run(self, part: str, loss: str, n: int, d: int, kappa: float, rooms: int = 1, **task: Any) -> dict[str, Any]:
        row = {"part": part, "loss": loss, "n": n, "d": d, "kappa": kappa, "rooms": rooms}
        task = {"dtype": self.dtype} | task
        row["form"] = "gathered" if task.get("gathered") else task["dtype"]
        options = OPTIONS[loss] | task.pop("options", {})
        task |= {"loss": loss, "kappa": kappa, "options": options, "threads": self.threads}
        row |= self.spawn(task | {"inputs": str(self.inputs(n, d, rooms))})
        self.rows.append(row)
        return row

    def left_out(self, why: str, **row: Any) -> dict[str, Any]:
        self.rows.append(row | {"left_out": why})
        return self.rows[-1]

    def spawn(self, task: dict[str, Any]) -> dict[str, Any]:
        command = [sys.executable, "-m", "benchmarks.losses", "--task", json.dumps(task)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return {"left_out": (done.stderr.strip().splitlines() or ["killed, out of memory"])[-1]}
        return json.loads(done.stdout)

    def inputs(self, n: int, d: int, rooms: int) -> Path:
        path = self.folder / f"{n}_{d}_{rooms}.npz"
        if not path.exists():
            for old in self.folder.glob("*.npz"):
                old.unlink()
            features, points = simulate(n, d, rooms)
            np.savez(path, features=features.numpy(), points=points.numpy())
        return path


def sizes(
    bench: Bench,
    losses: list[str],
    patches: list[int],
    dims: list[int],
    kappas: list[float],
    dense_gb: float,
    tau: float = TAU,
) -> Iterator[dict]:
    """Measure every loss at every size, except those whose time would exceed the limit."""
    last: dict[tuple, dict[str, Any]] = {}
    gradients = {loss: bench.folder / f"{loss}.npy" for loss in losses}
    for n in patches:
        for d in dims:
            for kappa in kappas:
                for path in gradients.values():
                    path.unlink(missing_ok=True)
                pairs = 0
                for loss in losses:
                    key = {"part": "size", "loss": loss, "n": n, "d": d, "kappa": kappa}
                    if loss == "dense" and pairs * DENSE_BYTES > dense_gb * 1e9:
                        yield bench.left_out(f"would need {pairs * DENSE_BYTES / 1e9:,.0f} GB", **key)
                        continue
                    before = last.get((loss, d, kappa))
                    if before and ("s" not in before or before["s"] * (n / before["n"]) ** 2 > bench.limit):
                        yield bench.left_out(f"more than {bench.limit:.0f} s", **key)
                        continue
                    task = {"gradient": str(gradients[loss]), "products": loss == "exact", "tau": tau}
                    row = bench.run("size", loss, n, d, kappa, **task)
                    last[loss, d, kappa] = row
                    if loss == "exact":
                        pairs = row["positives"] * (row["positives"] + row["negatives"])
                    reference = gradients.get(REFERENCE.get(loss, ""))
                    if reference and reference.exists() and "s" in row:
                        row["gradient_error"] = difference(gradients[loss], reference)
                    yield row


def agreement(bench: Bench, patches: list[int], dims: list[int], kappas: list[float], most: float) -> Iterator[dict]:
    """Compare `exact`, in float64 and float32, with `dense` in float64, up to ``most`` comparisons of two pairs."""
    dense, exact = bench.folder / "dense.npy", bench.folder / "exact.npy"
    for n in patches:
        for kappa in kappas:
            for d in dims:
                row = bench.run("agreement", "exact", n, d, kappa, dtype="float64", gradient=str(exact))
                comparisons = row["positives"] * (row["positives"] + row["negatives"])
                if comparisons > most:
                    row["left_out"] = f"dense requires {comparisons / 1e9:,.0f} G comparisons"
                    yield row
                    continue
                task = {"dtype": "float64", "blocks": True, "gradient": str(dense)}
                truth = bench.run("agreement", "dense", n, d, kappa, **task)
                compare(row, truth, exact, dense)
                single = bench.run("agreement", "exact", n, d, kappa, dtype="float32", gradient=str(exact))
                compare(single, truth, exact, dense)
                yield from (truth, row, single)


def area(bench: Bench, n: int, dims: list[int]) -> Iterator[dict]:
    """Measure one room, and two rooms with the same density of patches, with the ratio of their times."""
    for d in dims:
        one = bench.run("area", "exact", n, d, 0.5)
        two = bench.run("area", "exact", 2 * n, d, 0.5, rooms=2)
        two["time_ratio"] = two["s"] / one["s"]
        yield from (one, two)


def gathering(bench: Bench, n: int, d: int, options: dict[str, int]) -> Iterator[dict]:
    """Compare the sampled loss with its published form, with the same draws."""
    ours = bench.run("gathering", "sampled", n, d, 5.0, options=options)
    plain = bench.run("gathering", "sampled", n, d, 5.0, options=options, gathered=True)
    plain["loss_error"] = abs(plain["value"] - ours["value"])
    plain["memory_ratio"], plain["time_ratio"] = plain["mb"] / ours["mb"], plain["s"] / ours["s"]
    yield from (ours, plain)


def compare(row: dict[str, Any], truth: dict[str, Any], gradient: Path, true_gradient: Path) -> None:
    row["loss_error"] = abs(row["value"] - truth["value"])
    row["gradient_error"] = difference(gradient, true_gradient)


def difference(path: Path, reference: Path) -> float:
    """Return the relative L2 difference of two stored gradients."""
    a, b = np.load(path).astype(np.float64), np.load(reference).astype(np.float64)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


# Output ---------------------------------------------------------------------------------------------------------------


FORMATS = {
    "positives": ",", "negatives": ",", "mean_ap": ".3f", "s": ".2f", "mb": ".0f", "products_s": ".2f",
    "ratio": ".2f", "gradient_error": ".1e", "loss_error": ".1e", "time_ratio": ".2f", "memory_ratio": ".1f",
}  # fmt: skip
COLUMNS = ["part", "loss", "form", "n", "d", "kappa", "rooms", *FORMATS, "left_out"]


def print_table(title: str, rows: Iterator[dict[str, Any]], columns: list[str]) -> None:
    columns = ["loss", "form", "n", "d", "kappa", *columns, "left_out"]
    print(f"\n{title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    for row in rows:
        if "products_s" in row:
            row["ratio"] = row["s"] / row["products_s"]
        cells = (format(row[c], FORMATS.get(c, "")) if row.get(c) is not None else "" for c in columns)
        print(f"| {' | '.join(cells)} |", flush=True)


def write(rows: list[dict[str, Any]], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Plot time and memory over the number of patches: one column per radius, solid lines for the largest dimension."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in rows if row["part"] == "size" and "s" in row]
    kappas, dims, patches = (sorted({row[key] for row in rows}) for key in ("kappa", "d", "n"))
    curves = [("3 products", "exact", "products_s", "0.6"), *((x, x, "s", f"C{k}") for k, x in enumerate(OPTIONS))]
    size = (4.2 * len(kappas) + 1.4, 6)
    figure, axes = pyplot.subplots(2, len(kappas), figsize=size, sharex=True, sharey="row", squeeze=False)
    for (above, below), kappa in zip(axes.T, kappas):
        for name, loss, seconds, colour in curves:
            for d in dims:
                line = [row for row in rows if (row["loss"], row["d"], row["kappa"]) == (loss, d, kappa)]
                style = {"color": colour, "linestyle": "-" if d == max(dims) else "--", "marker": "."}
                n = [row["n"] for row in line]
                if line:
                    above.plot(n, [row[seconds] for row in line], label=f"{name}, d {d}", **style)
                if line and seconds == "s":
                    below.plot(n, [row["mb"] for row in line], **style)
        above.set(title=f"kappa {kappa:g} m", xscale="log", yscale="log")
        below.set(xlabel="patches", xticks=patches, xticklabels=patches, ylim=0)
        below.minorticks_off()
        above.grid(alpha=0.3)
        below.grid(alpha=0.3)
    axes[0, 0].set_ylabel("seconds, forward and backward")
    axes[1, 0].set_ylabel("peak memory, MB")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="center right", fontsize=8)
    figure.tight_layout(rect=(0, 0, 1 - 1.4 / size[0], 1))
    for suffix in (".svg", ".png"):
        figure.savefig(path.with_suffix(suffix), dpi=110)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--losses", nargs="+", default=[*OPTIONS], choices=[*OPTIONS], help="losses in the table of sizes"
    )
    parser.add_argument("--sizes-only", action="store_true", help="print only the table of sizes")
    parser.add_argument(
        "--patches",
        type=int,
        nargs="+",
        default=[2560 * 2**k for k in range(6)],
        help="numbers of patches in the table of sizes, and with --device",
        metavar="N",
    )
    parser.add_argument(
        "--dims", type=int, nargs="+", default=[64, 768], help="dimensions of the features", metavar="D"
    )
    parser.add_argument("--kappas", type=float, nargs="+", default=[0.5, 5.0], help="radii kappa, metres", metavar="M")
    parser.add_argument(
        "--tau", type=float, default=TAU, help="temperature in the table of sizes (default: %(default)s)"
    )
    parser.add_argument("--limit", type=float, default=60, help="maximum seconds per call (default: %(default)s)")
    parser.add_argument(
        "--dense-gb", type=float, default=4, help="maximum memory of the dense loss, GB (default: %(default)s)"
    )
    parser.add_argument(
        "--dtype", default="float32", choices=["float32", "bfloat16", "float16"], help="dtype of the features"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch (default: %(default)s)")
    parser.add_argument(
        "--csv",
        type=Path,
        help="output file (default: results/benchmarks/losses.csv, or loss_speed.csv there with --device)",
    )
    parser.add_argument(
        "--plot", type=Path, help="path of the figure, written as SVG and PNG (default: beside the CSV)"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes only")
    parser.add_argument(
        "--device",
        choices=["cpu", "cuda"],
        help="measure only the losses over all pairs, on this device, and append the rows to the CSV",
    )
    parser.add_argument("--runs", type=int, default=20, help="with --device: measured calls (default: %(default)s)")
    parser.add_argument("--task", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        print(json.dumps(measure(options.task)))
        return
    # With --device, rows are appended to those of earlier runs, so they are in a separate file.
    options.csv = options.csv or Path("results/benchmarks", "loss_speed.csv" if options.device else "losses.csv")
    if options.device:
        from benchmarks import loss_speed  # imports this module

        torch.set_num_threads(options.threads)
        sizes_of = options.patches, options.dims, options.kappas
        for row in loss_speed.rows(options.device, loss_speed.LOSSES, *sizes_of, options.dtype, options.runs):
            loss_speed.append(row, options.csv)
            print({key: value for key, value in row.items() if key in loss_speed.COLUMNS[6:]}, flush=True)
        loss_speed.plot(options.csv)
        return
    few = [320, 640] if options.quick else [320, 640, 1280, 2560]
    patches = [1280] if options.quick else options.patches
    caps = {"anchors": 2 if options.quick else GATHER_ANCHORS}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options.limit, options.threads, options.dtype)
        columns = ["positives", "negatives", "mean_ap", "s", "mb", "products_s", "ratio", "gradient_error"]
        rows = sizes(bench, options.losses, patches, options.dims, options.kappas, options.dense_gb, options.tau)
        print_table("Sizes", rows, columns)
        write(bench.rows, options.csv)  # the following measurements may be interrupted
        if options.sizes_only:
            return
        rows = agreement(bench, few, options.dims[:1], options.kappas, MAX_COMPARISONS)
        columns = ["positives", "negatives", "s", "mb", "loss_error", "gradient_error"]
        print_table("Against dense in float64", rows, columns)
        n = 2560 if options.quick else 20480
        print_table("Twice the area", area(bench, n, options.dims), ["rooms", "s", "mb", "time_ratio"])
        rows = gathering(bench, n, max(options.dims), caps)
        print_table("Gathered features", rows, ["s", "mb", "loss_error", "memory_ratio", "time_ratio"])
    write(bench.rows, options.csv)
    plot(bench.rows, options.plot or options.csv)


if __name__ == "__main__":
    main()
