"""The settings of a run: what they are, reading and writing them as YAML, and what is wrong with a file."""
