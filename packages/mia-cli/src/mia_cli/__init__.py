"""The mia command: from single-image data to an aligned vision-language model, and proof of whether it worked."""
