"""What a model answers, and how likely it holds given answers."""
