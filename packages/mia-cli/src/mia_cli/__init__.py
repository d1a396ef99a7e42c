"""The mia command: from single-image data to an aligned vision-language model, and proof of whether it worked."""

__version__ = "0.2.0"
