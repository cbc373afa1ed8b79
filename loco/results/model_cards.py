"""Model cards (Mitchell et al. 2019): a README.md with the configuration, the training and the scores of a model.

The whole card is generated from the model and from metric files. It begins with the metadata block of model hubs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from loco.errors import DataError
from loco.evaluation.catalogue import BENCHMARKS, Benchmark
from loco.evaluation.result import Row
from loco.records import Record
from loco.results.metrics import Metrics
from loco.results.tables.markup import DASH, MARKDOWN, format_value

HEAD = """\
---
library_name: loco
pipeline_tag: image-feature-extraction
tags: [loco, location-consistent-features, correspondence]
---
"""
USE = """\
```python
import loco

model = loco.load("{place}")
features = model.extract(images)  # 8-bit RGB (b, H, W, 3) -> L2-normalised features (b, {dim}, h, w)
```
"""
EXPLORE = """\
## Explore

[{path}]({path}) compares the features of any patch of a test scene with those of all its views. Download the file and
open it in a browser; it needs no network.
"""


def model_card(
    title: str,
    model: Mapping[str, Any],
    sizes: Mapping[str, Any],
    facts: Mapping[str, Any],
    metrics: Iterable[Metrics] = (),
    licence: str | None = None,
    backbones: Mapping[str, str] | None = None,
    explorer: str | None = None,
    place: str | None = None,
) -> str:
    """Return the card of a model, as Markdown.

    Args:
        title: heading of the card.
        model: the model's configuration.
        sizes: ``dim``, ``stride``, and other sizes of the model.
        facts: facts about its training, from its file (data, split, seed, loss, steps); may be empty.
        metrics: its metric files.
        licence: licence of its backbone.
        backbones: path of each backbone whose weights are not in the model file -> SHA-256 of these weights.
        explorer: path of an explorer page beside the card.
        place: argument of ``loco.load`` in the example; None for a placeholder of the path of the card's folder.

    Raises:
        DataError: a metric file belongs to another run (its split, experiment or seed differs from that of the model),
            or to a benchmark that is not in the catalogue.
    """
    metrics = sorted(metrics, key=lambda m: m.order)
    for one in metrics:
        _require_same_run(one, facts)
    dim, stride = sizes["dim"], sizes["stride"]
    parts = [
        HEAD,
        f"# {_text(title)}\n",
        f"Dense image features, compared by cosine similarity: one L2-normalised vector of {dim} numbers per patch of "
        f"{stride} x {stride} pixels. Feature (r, q) is centred at pixel ((q + 0.5) {stride}, (r + 0.5) {stride}); "
        "(0, 0) is the top-left corner of the image.\n",
        "## Use\n",
        USE.format(dim=dim, place=place or "path/of/this/folder"),
        *(_backbone_section(path, digest) for path, digest in (backbones or {}).items()),
        *([EXPLORE.format(path=explorer)] if explorer else []),
        "## Model\n",
        _table(("", ""), _flat({"model": model, "sizes": sizes})),
        "## Training\n",
        _table(("", ""), _flat(facts)) if facts else "The model file contains no record of a training.\n",
        "## Results\n",
        *(_results(metrics) if metrics else ["No metric files were provided.\n"]),
        "## Licence\n",
        "The weights are subject to the terms of the data that they were trained on"
        + (f" and to the licence of the backbone: {_text(licence)}.\n" if licence else ".\n"),
    ]
    return "\n".join(parts)


def is_card(text: str) -> bool:
    """Return whether a text is a card written by :func:`model_card`."""
    return text.startswith(HEAD)


def _backbone_section(path: str, digest: str) -> str:
    return (
        f"The model requires the backbone {_text(path)} (SHA-256 of its weights: `{digest}`): a folder or file next to "
        "this one, or a name on the Hugging Face hub, from which it is downloaded. For another path, call "
        '`loco.load("path/of/this/folder", backbone="path/of/the/backbone")`.\n'
    )


def _require_same_run(metrics: Metrics, facts: Mapping[str, Any]) -> None:
    run: dict[str, str | int] = {"split": metrics.split, "experiment": metrics.experiment}
    if metrics.seed is not None:  # a deterministic extractor is evaluated once for all seeds
        run["seed"] = metrics.seed
    expected = {name: facts[name] for name in run if name in facts}
    found = {name: run[name] for name in expected}
    if found != expected:
        raise DataError(
            "the metric file belongs to another run than the model",
            file=metrics.path,
            expected=expected,
            found=found,
            remedy="pass the metric files of this model: results/metrics/<benchmark>/<split>/<experiment>/seed<N>.json",
        )


def _results(metrics: Sequence[Metrics]) -> Iterator[str]:
    """Yield one table per metric file, then the provenance of the numbers."""
    for one in metrics:
        benchmark = _benchmark_of(one)
        yield (
            f"**{_text(benchmark.title)}**, test scenes of split {_text(one.split)}. {benchmark.measures}. In percent, "
            "or in the unit of the metric; in brackets the 95 % confidence interval for "
            f"{_populations(one, benchmark)}; "
            "the interval does not include the variation between seeds.\n"
        )
        conditions = list(dict.fromkeys(row.condition for row in one.rows))
        lines = []
        for (metric, unit), rows in groupby(one.rows, key=lambda row: (row.metric, row.unit)):
            cells = {row.condition: _score(row) for row in rows}
            named = metric if unit == "%" else f"{metric} ({unit})"
            lines.append((named, *(cells.get(condition, DASH) for condition in conditions)))
        number = {row.condition: row.n for row in one.rows}
        lines.append((f"number of {benchmark.items}", *(number[condition] for condition in conditions)))
        scenes = {row.condition: row.scenes for row in one.rows}
        lines.append(("number of scenes", *(scenes[condition] for condition in conditions)))
        yield _table(("", *conditions), lines)
    yield (
        "Provenance of these numbers: the fingerprint of the code of the evaluation, and the fingerprint of the "
        "recipe, "
        "which covers the code and the settings of all steps, starting with the raw data.\n"
    )
    columns = ("benchmark", "split", "experiment", "seed", "code", "recipe", "device", "versions")
    seeds = ["none (deterministic)" if m.seed is None else m.seed for m in metrics]
    yield _table(columns, [(*m.key[:3], seed, *_record(m.record)) for m, seed in zip(metrics, seeds)])


def _populations(metrics: Metrics, benchmark: Benchmark) -> str:
    """Return the population of the intervals; if there are several, each with its metrics and conditions."""
    found: dict[str, dict[str, None]] = {}
    for row in metrics.rows:
        if row.population:
            found.setdefault(benchmark.population(row.population), {})[f"{row.metric}, {row.condition}"] = None
    if len(found) < 2:
        return next(iter(found), benchmark.drawn)
    return " or ".join(f"{population} ({'; '.join(names)})" for population, names in found.items())


def _benchmark_of(metrics: Metrics) -> Benchmark:
    if metrics.benchmark not in BENCHMARKS:
        raise DataError(
            "the metric file belongs to a benchmark that this version does not have",
            file=metrics.path,
            expected=f"one of {', '.join(BENCHMARKS)}",
            found=metrics.benchmark,
            remedy="omit the file, or use the version of loco that wrote it",
        )
    return BENCHMARKS[metrics.benchmark]


def _record(record: Record | None) -> tuple[str, str, str, str]:
    if record is None:
        return DASH, DASH, DASH, DASH
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    return record.recipe.code[:12], record.recipe.id[:12], record.device, versions


def _score(row: Row) -> str:
    if row.value is None:
        return DASH
    value, low, high = (
        "\N{INFINITY}" if bound is None else format_value(bound, row.unit) for bound in (row.value, row.low, row.high)
    )
    return value if row.low is None else f"{value} [{low}, {high}]"


def _flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Yield the leaves of nested mappings with their dotted names; mappings in a list are numbered from 1."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            for number, item in enumerate(value, 1):
                yield from _flat(item, f"{above}{name}.{number}.")
        else:
            yield f"{above}{name}", _leaf(value)


def _leaf(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_leaf, value))
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return str(value)


def _table(head: Sequence[Any], lines: Iterable[Sequence[Any]]) -> str:
    rows = [[_text(str(cell)) for cell in line] for line in [head, *lines]]
    rows.insert(1, [":--"] * len(head))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _text(text: str) -> str:
    """Return a text as one line with all Markdown escaped."""
    return MARKDOWN.escape(" ".join(text.split()))
