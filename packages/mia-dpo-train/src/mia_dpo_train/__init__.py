"""Exact DPO on multi-image preference pairs, with shared prefixes and stored reference log-probs."""
