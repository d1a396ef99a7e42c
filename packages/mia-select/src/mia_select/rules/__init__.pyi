from .attention import looks_elsewhere as looks_elsewhere
from .attention import threshold_for as threshold_for
from .candidate import Candidate as Candidate
from .edit_distance import edit_distance as edit_distance
from .length_ratio import length_ratio as length_ratio
from .table import RULES as RULES
from .table import Rule as Rule
from .table import rules_reading as rules_reading
