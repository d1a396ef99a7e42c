from .overlap import picture_content as picture_content
from .overlap import seen_in_training as seen_in_training
from .overlap import training_folders as training_folders
from .record_pictures import pictures_digest as pictures_digest
