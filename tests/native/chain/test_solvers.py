"""Every solver's table on the native chain: the bits of the numpy reference, for networks of timesteps and of sigma."""

import numpy as np
import pytest

from pysdk import _native
from pysdk.diffusion import numpy_chain
from pysdk.diffusion.edm import EdmSchedule
from pysdk.diffusion.schedule import Schedule
from pysdk.errors import OptionError
from pysdk.solvers import SOLVERS, make_table

SHAPE = (2, 5, 3)
COUNT = 3
PROCESSES = {"timesteps": (Schedule.cosine(), "v_prediction"), "sigma": (EdmSchedule(), "edm")}
OPTIONS = {"heun": {"s_churn": 5.0, "s_tmax": 50.0}, "euler": {"s_churn": 5.0, "s_tmax": 50.0}}


def network(x, t, labels):
    return np.float32(0.5) * x + np.float32(t) * np.float32(0.001)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("name", SOLVERS)
def test_native_is_the_reference(name, process):
    schedule, prediction_type = PROCESSES[process]
    chosen = {"steps": 6, "prediction_type": prediction_type, **OPTIONS.get(name, {})}
    if process == "sigma" and name in ("ddpm", "ddim", "reverse_ddim", "euler_maruyama", "ode_euler", "ode_heun"):
        with pytest.raises(OptionError, match=f"solver '{name}' needs timesteps, this is a network of sigma; use one"):
            make_table(name, schedule, **chosen)
        return
    table = make_table(name, schedule, **chosen)
    initial = np.random.default_rng(0).uniform(-1, 1, (COUNT, *SHAPE)).astype(np.float32)
    started = initial if name == "reverse_ddim" else None
    seeds, images = np.full(COUNT, 3, np.uint64), np.arange(COUNT, dtype=np.uint64)
    expected = numpy_chain.run(table, network, shape=SHAPE, seeds=3, images=images, initial=started)
    chain = _native.Chain(batch=COUNT, shape=SHAPE, out_channels=SHAPE[0])

    def call():
        chain.network_output[:] = network(chain.network_input, chain.network_time[0], None)

    chain.attach(call)
    chain.begin(
        table.native,
        seeds=seeds,
        images=images,
        initial=started,
    )
    assert chain.advance(len(table)) == len(table)
    np.testing.assert_array_equal(chain.x, expected.x)
    np.testing.assert_array_equal(chain.denoised, expected.d1)
    assert np.isfinite(expected.x).all()
    assert np.abs(expected.x).max() > 1e-3
