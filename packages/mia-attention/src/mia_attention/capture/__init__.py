"""Attention read while a model runs on its usual, fast attention."""
