"""The same samples whatever the number of processes: waves of tasks, chunks, workers."""
