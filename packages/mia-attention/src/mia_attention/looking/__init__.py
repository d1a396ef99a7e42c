"""One answer, looked at: what was said, where each word came from, and what of it each picture alone explains."""
