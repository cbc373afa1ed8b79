"""Benchmarks, each of which scores the features of one extractor.

:mod:`loco.evaluation.catalogue` lists the benchmarks. The module of a benchmark has the name of the benchmark and two
functions. ``evaluate(scenes, settings, seed=0)`` scores the features of all test scenes and returns an
:class:`~loco.evaluation.result.Evaluation`. ``samples(items, settings)`` returns the scores of the items over which
each result is averaged (:class:`~loco.evaluation.result.Sample`), so that experiments can be compared item by item.
"""
