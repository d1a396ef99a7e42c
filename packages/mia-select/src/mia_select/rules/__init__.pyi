from .calibration import ENOUGH as ENOUGH
from .calibration import Ratios as Ratios
from .calibration import is_inert as is_inert
from .one_sided import AnswerCounts as AnswerCounts
from .thresholds import looks_elsewhere as looks_elsewhere
from .thresholds import threshold_for as threshold_for
