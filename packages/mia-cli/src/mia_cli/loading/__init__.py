"""TODO mia_cli.loading"""
