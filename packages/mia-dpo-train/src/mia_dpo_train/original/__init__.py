"""Checkpoints of a model's original code, written anew in transformers' layout."""
