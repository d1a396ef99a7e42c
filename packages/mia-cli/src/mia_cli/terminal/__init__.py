"""TODO mia_cli.terminal"""
