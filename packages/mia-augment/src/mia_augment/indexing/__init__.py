"""All rows on disk, looked up by picture, source set and question."""
