"""The commands, in three modules that import nothing heavy before one of them runs."""
