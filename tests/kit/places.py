"""Where the checkout has what tests read."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
FASHION_MNIST = DATA / "fashion_mnist_1000.npz"
MODEL = ROOT / "models" / "fashion-mnist"
CLASSIFIER = ROOT / "models" / "fashion-mnist-classifier"
