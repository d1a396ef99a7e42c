"""Measurements that train or ask more than a run does: `mia ablate`, `mia diagnose`."""
