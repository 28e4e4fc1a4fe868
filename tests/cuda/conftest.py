import sys
from pathlib import Path

# the random chains that the CPU's tests are made of
sys.path.insert(0, str(Path(__file__).parents[1] / "native"))
