"""Processes that tests start."""

import os
import sys

IMPORTS = {"PYTHONPATH": os.pathsep.join(sys.path)}
"""Environment of a Python that imports what this one can."""
