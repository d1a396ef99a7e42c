"""`mia report A B`: two runs on the same held-out questions, as one HTML file."""
