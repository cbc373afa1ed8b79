"""Defaults of settings that both the benchmarks and the check of a configuration use. Imports nothing."""

SEEN_WITHIN, UNSEEN_BEYOND = 0.1, 0.2  # metres (loco.evaluation.training_surfaces)
