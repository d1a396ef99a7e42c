"""Log-probs of answers: three routes that agree, the check that chooses one, the stored reference."""
