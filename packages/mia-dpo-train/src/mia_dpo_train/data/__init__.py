"""From preference pairs to batches of token ids and image tensors."""
