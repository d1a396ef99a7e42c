"""TODO mia_cli.drawn"""
