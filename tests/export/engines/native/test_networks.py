"""Whole networks, as torch exports them: covered without a rest, computed as ONNX Runtime computes them.

The two shared networks are ours with strided convolutions, attention and classes, and ours with pooling and scale and
shift. Float64 is compared with ONNX Runtime to 5e-6 of the largest output, the C++ engine with float64 to 1e-5.
"""

from collections import Counter

import numpy as np
import pytest
from kit.compiler.graphs import assert_same, kinds
from kit.compiler.networks import NETWORKS

from pysdk.export.check import NetworkBuffers
from pysdk.export.engines.native import float64, tactics
from pysdk.export.engines.native.builder import MAX_RELATIVE_ERROR, loaded
from pysdk.export.engines.native.from_onnx.lowering import lower
from pysdk.export.engines.native.fusion import fuse
from pysdk.export.engines.native.program import Conv
from pysdk.export.engines.native.weights import pack
from pysdk.export.lowering.onnx_files import OnnxFiles

pytestmark = pytest.mark.slow

TIMESTEPS = (0.0, 7.0, 19.0)

UNFUSED = {
    "ours: odd channels, resampling blocks, classes": {"add": 1, "pool": 4, "upsample": 2, "embedding": 1},
    "diffusers: six levels": {"add": 1},
    "diffusers: every option": {"add": 2, "pool": 2, "upsample": 1, "scale": 4, "embedding": 1},
    "openai: guided": {"add": 1, "pool": 2, "upsample": 1, "embedding": 1},
}
"""What is left beside convolutions, norms, attention and the branch of t, and two SiLUs in that.

All other sums and SiLUs are inside them. The attention of six levels is on one pixel, where its layers are of vectors.
"""


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(exported, name):
    program = assert_same(*exported(name), TIMESTEPS, batch=2)
    counts = Counter(kinds(program))
    fused = {"conv", "group_norm", "attention", "timestep", "linear"}
    assert {kind: count for kind, count in counts.items() if kind not in fused} == {"silu": 2, **UNFUSED[name]}


def test_shared_networks(plan_network):
    program = assert_same(*plan_network, TIMESTEPS)
    assert not {"concat", "scale"} & set(kinds(program))


@pytest.mark.parametrize("name", NETWORKS)
def test_almost_all_weights_stay_in_the_onnx_file(exported, name):
    data, model = exported(name)
    program = fuse(lower(data, model))
    head, constants = pack(program, data)
    assert len(constants) < len(data) / 50  # sines, and the folded projections of single-head attention
    assert len(head) < 64_000


@pytest.mark.parametrize("tactic", tactics.TACTICS)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_engine_computes_the_program(exported, name, tactic):
    data, model = exported(name)
    program = fuse(lower(data, model))
    program = tactics.with_tactics(
        program,
        {op.out: tactic for op in program.ops if isinstance(op, Conv) and tactic in tactics.choices(program, op)},
    )
    rng = np.random.default_rng(1)
    buffers = NetworkBuffers(model, 3)
    call = loaded(program, model, OnnxFiles(data), 1).bind(buffers)
    for t in TIMESTEPS:
        buffers.network_input[:] = rng.standard_normal(buffers.network_input.shape)
        buffers.network_labels[:], buffers.network_time[:] = rng.integers(model.num_classes or 1, size=3), t
        buffers.network_output.fill(np.nan)
        call()
        expected = float64.run(program, buffers.network_input, t, buffers.network_labels)
        assert np.abs(buffers.network_output - expected).max() <= MAX_RELATIVE_ERROR * np.abs(expected).max()


def test_timesteps_may_differ_between_images_in_float64(plan_network):
    data, model = plan_network
    program = fuse(lower(data, model))
    x = np.random.default_rng(0).standard_normal((3, *model.shape))
    times, labels = np.array([0.0, 5.0, 19.0]), np.zeros(3, np.int64)
    together = float64.run(program, x, times, labels)
    for index, t in enumerate(times):
        alone = float64.run(program, x[index : index + 1], t, labels[:1])
        np.testing.assert_allclose(together[index : index + 1], alone, rtol=0, atol=1e-12)
