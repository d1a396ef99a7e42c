from .decode import check_file as check_file
from .decode import open_picture as open_picture
from .picture_values import StorePicture as StorePicture
from .picture_values import listed as listed
from .picture_values import picture_path as picture_path
from .picture_values import pictures_given as pictures_given
from .picture_values import shown as shown
