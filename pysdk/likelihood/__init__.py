"""How likely images are under a model: the variational bound of DDPM, term by term, in bits per dimension."""

from pysdk.likelihood.bound import Likelihood

__all__ = ["Likelihood"]
