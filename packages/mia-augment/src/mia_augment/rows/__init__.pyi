from .pictures_in_rows import EmbeddedPictures as EmbeddedPictures
from .placeholders import foreign_placeholder as foreign_placeholder
