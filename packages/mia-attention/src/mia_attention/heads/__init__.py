"""Single attention heads: which of them tell right from wrong, or find the named picture."""
