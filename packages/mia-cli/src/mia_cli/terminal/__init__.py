"""What a person reads on the terminal: progress, remarks and tables of results."""
