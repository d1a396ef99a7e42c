"""The mia command: from single-image data to an aligned vision-language model, and proof of whether it worked."""

__version__ = "0.1.0"
