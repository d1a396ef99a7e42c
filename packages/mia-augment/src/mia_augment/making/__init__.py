"""From rows to a folder of samples: what is planned, cleared, made, shared among shards, and put together."""
