"""What users of `pysdk.training` need of `pysdk.datasets`."""

from pysdk.datasets.dataset import Dataset
from pysdk.datasets.loading import load_dataset as load

__all__ = ["Dataset", "load"]
