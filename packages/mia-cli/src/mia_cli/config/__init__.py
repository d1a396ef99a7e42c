"""TODO mia_cli.config.schema"""
