"""Causes instead of shares: what changes where pictures are hidden, heads are taken out, attention is weighted otherwise."""
