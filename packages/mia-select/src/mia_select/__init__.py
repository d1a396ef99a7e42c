"""Which preference pairs are worth learning from, and proof of whether it worked."""
