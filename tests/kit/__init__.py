"""What tests share: networks, plans, chains and other materials, with no tests in it."""

import os
import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[2])

# the checkout comes last, where tools and benchmarks are found: tests are of the installed package
sys.path[:] = [*(path for path in sys.path if path != ROOT), ROOT]
os.environ["PYTHONSAFEPATH"] = "1"  # also in processes that tests start from the checkout
