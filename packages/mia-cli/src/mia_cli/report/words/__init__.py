"""Sentences of the pages, written from figures."""
