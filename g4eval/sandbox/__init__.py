"""Sandboxes: run what a model wrote, away from everything else."""
