"""Looking at a machine, a run or one record of it; nothing here changes a file."""
