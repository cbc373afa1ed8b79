"""Default settings that are shared by the benchmarks and the validation of configurations. Imports nothing."""

SEEN_WITHIN, UNSEEN_BEYOND = 0.1, 0.2  # metres (loco.evaluation.training_surfaces)
