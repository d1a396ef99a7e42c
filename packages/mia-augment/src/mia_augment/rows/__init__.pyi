from .pictures_in_rows import EmbeddedPictures as EmbeddedPictures
