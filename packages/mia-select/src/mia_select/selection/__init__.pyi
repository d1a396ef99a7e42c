from .calibration import ENOUGH as ENOUGH
from .calibration import Ratios as Ratios
from .calibration import is_inert as is_inert
from .funnel import Selection as Selection
from .one_sided import AnswerCounts as AnswerCounts
