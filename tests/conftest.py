"""One thread for every test and every process that a test starts: torch's last digits depend on their number."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported, so before any test module is
