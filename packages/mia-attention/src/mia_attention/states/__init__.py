"""Hidden states: captured, probed, and read as words."""
