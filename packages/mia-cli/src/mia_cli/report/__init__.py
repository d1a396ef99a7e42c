"""`mia report`: a run as one HTML file that needs nothing else."""

from mia_cli.report.page import write_report

__all__ = ["write_report"]
