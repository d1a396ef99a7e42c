"""The run: plan of the steps, the loop, checkpoints, metrics."""
