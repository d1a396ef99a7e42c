"""`python -m mia_cli`."""

from mia_cli.main import main

main(prog_name="mia")
