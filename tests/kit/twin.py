"""The numpy twin of whole requests: `pysdk.diffusion.numpy_chain` with the sampler's own engine as the network."""

from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pysdk import Sampler
from pysdk.diffusion import numpy_chain
from pysdk.request.request import Request


def network_of(engine: Any, shape: tuple[int, ...]) -> numpy_chain.Denoise:
    """An engine as a function of (x, t, labels)."""

    def call(x: NDArray[np.float32], t: np.float32, labels: NDArray[np.int64]) -> NDArray[np.float32]:
        buffers = SimpleNamespace(
            network_input=np.ascontiguousarray(x),
            network_time=np.array([t], np.float32),
            network_labels=np.ascontiguousarray(labels),
            network_output=np.zeros((len(x), *shape), np.float32),
        )
        engine.bind(buffers)()
        return buffers.network_output

    return call


def twin(sampler: Sampler, request: Request) -> NDArray[np.float32]:
    """x after the last row, by numpy."""
    model, executor = sampler.plan.manifest.model, sampler._executor
    state = numpy_chain.run(
        request.table,
        network_of(executor.engine, (model.out_channels, *model.shape[1:])),
        shape=model.shape,
        seeds=request.seeds,
        images=request.images,
        labels=request.labels,
        null_label=-1 if model.null_label is None else model.null_label,
        guidance=request.guidance,
        classifier=None if executor.classifier is None else network_of(executor.classifier, model.shape),
        classifier_scale=request.classifier_scale,
        initial=request.initial,
        known=request.known,
        keep=None if request.keep is None else request.keep.astype(bool),
    )
    return state.x
