"""Where a vision-language model looks while it answers, at the speed of plain generation."""
