from .box_coverage import BoxCoverage as BoxCoverage
