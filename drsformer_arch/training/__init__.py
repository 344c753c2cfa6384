"""The BasicSR model class, its schedule, its batches and its checkpoints."""
