from .ahead import asked_ahead as asked_ahead
from .answers_file import FileAnswers as FileAnswers
from .answers_file import check_source as check_source
from .open_source import opened as opened
from .said import GivenAnswers as GivenAnswers
from .said import Said as Said
from .same_model import check_same_model as check_same_model
from .server import ServerAnswers as ServerAnswers
