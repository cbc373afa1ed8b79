"""Benchmarks, each of which scores the features of one extractor. Each module has the name of its benchmark.

A module has two functions. ``evaluate(scenes, settings, seed=0)`` scores the features of all test scenes and returns an
:class:`~loco.evaluation.result.Evaluation`. ``samples(items, settings)`` returns the items that each score is computed
from, so that experiments can be compared item by item. :mod:`loco.evaluation.catalogue` lists the benchmarks.
"""
