"""Whole chains: native against the papers' samplers in torch, diffusers' loops and the numpy twin, on the same noise.

The native state is float32 whatever the reference's dtype; what differs is the rounding of up to 1000 updates.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.schedulers import scheduling_ddpm
from kit.in_torch import torch_reference
from torch import Tensor, nn

from pysdk import _native, _testing
from pysdk.diffusion import numpy_chain
from pysdk.diffusion.schedule import Schedule
from pysdk.diffusion.table import Clip, StepTable
from pysdk.solvers import make_table

SHAPE = (2, 6, 5)
BATCH = 3
SEED = 1234
IMAGES = np.array([5, 0, 2**40], dtype=np.uint64)
LABELS = np.array([0, 2, 1])
NULL_LABEL = 3
GUIDANCE = np.array([0.0, 1.0, 2.5], dtype=np.float32)
SCHEDULES = {"linear": Schedule.linear(), "cosine": Schedule.cosine()}

# Largest error allowed, relative to the largest value of the chain's end (1 where D is clamped).
TOLERANCE = {torch.float64: 2e-5, torch.float32: 4e-5}
TOLERANCE_DIFFUSERS = 5e-5  # its tables are float32: 1 - alphas_cumprod[0] is good to four digits

chains = pytest.mark.parametrize(("steps", "is_guided"), [(1000, True), (50, False), (50, True)])
dtypes = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)


@pytest.fixture(autouse=True)
def _one_thread():
    """The networks here are too small to share."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(threads)


class SmallNetwork(nn.Module):
    """A fixed random network of (x, t, labels), smooth in x; the second C channels, if any, are within (-1, 1)."""

    def __init__(self, out_channels: int, dtype: torch.dtype) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.inlet = nn.Conv2d(SHAPE[0], 8, 3, padding=1)
            self.outlet = nn.Conv2d(8, out_channels, 3, padding=1)
            self.label = nn.Embedding(NULL_LABEL + 1, 8)
            self.register_buffer("frequency", torch.rand(8) * 0.01)
        self.to(dtype)

    def forward(self, x: Tensor, t: int | Tensor, labels: Tensor) -> Tensor:
        embedding = self.label(labels) + torch.sin(self.frequency * t)
        out = self.outlet(torch.tanh(self.inlet(x) + embedding[:, :, None, None]))
        channels = x.shape[1]
        return torch.cat([0.5 * x + out[:, :channels], torch.tanh(out[:, channels:])], dim=1)


@dataclass
class Run:
    """One chain in both worlds."""

    table: StepTable
    network: SmallNetwork
    dtype: torch.dtype
    is_guided: bool = False

    def native(self) -> np.ndarray:
        chain = _native.Chain(
            batch=BATCH, shape=SHAPE, out_channels=self.network.outlet.out_channels, guided=self.is_guided, threads=2
        )
        x, t = torch.from_numpy(chain.network_input), torch.from_numpy(chain.network_time)
        labels, out = torch.from_numpy(chain.network_labels), torch.from_numpy(chain.network_output)
        chain.attach(lambda: out.copy_(self.network(x.to(self.dtype), t, labels)))
        chain.begin(
            self.table.native,
            seeds=np.full(BATCH, SEED, dtype=np.uint64),
            images=IMAGES,
            labels=LABELS,
            null_label=NULL_LABEL,
            guidance=GUIDANCE if self.is_guided else None,
        )
        assert chain.advance(len(self.table)) == len(self.table)
        return chain.x.copy()

    def twin(self) -> np.ndarray:
        def denoise(x: np.ndarray, t: np.float32, labels: np.ndarray) -> np.ndarray:
            out = self.network(torch.from_numpy(x).to(self.dtype), torch.tensor([t]), torch.from_numpy(labels))
            return out.float().numpy()

        weights = GUIDANCE if self.is_guided else None
        options = {"labels": LABELS, "null_label": NULL_LABEL, "guidance": weights}
        return numpy_chain.run(self.table, denoise, shape=SHAPE, seeds=SEED, images=IMAGES, **options).x

    def noise(self, draw: int) -> Tensor:
        return torch.from_numpy(_testing.normal(SEED, IMAGES, draw, SHAPE)).to(self.dtype)

    def reference_network(self) -> torch_reference.Network:
        labels = torch.from_numpy(LABELS)
        if self.is_guided:
            return torch_reference.guided(self.network, labels, NULL_LABEL, torch.from_numpy(GUIDANCE))
        return lambda x, t: self.network(x, t, labels)


def assert_close(native: np.ndarray, expected: Tensor, tolerance: float) -> None:
    assert expected.isfinite().all()
    assert expected.std() > 0.1  # an end without detail would prove nothing
    np.testing.assert_allclose(native, expected, rtol=0, atol=tolerance * max(1.0, float(expected.abs().max())))


@dtypes
@chains
@pytest.mark.parametrize("variance", ["small", "large", "learned"])
def test_ddpm(variance, steps, is_guided, dtype):
    schedule = SCHEDULES["linear"]
    table = make_table("ddpm", schedule, steps=steps, variance=variance)
    run = Run(table, SmallNetwork(SHAPE[0] * (1 + table.learned_variance), dtype), dtype, is_guided)
    timesteps = range(999, -1, -1) if steps == 1000 else range(980, -1, -20)
    expected = torch_reference.ddpm(
        run.reference_network(), schedule.betas.tolist(), timesteps, run.noise, variance=variance, clip=1.0
    )
    assert_close(run.native(), expected, TOLERANCE[dtype])


@dtypes
@chains
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim(eta, steps, is_guided, dtype):
    schedule = SCHEDULES["linear"]
    run = Run(make_table("ddim", schedule, steps=steps, eta=eta), SmallNetwork(SHAPE[0], dtype), dtype, is_guided)
    timesteps = range(999, -1, -1) if steps == 1000 else range(980, -1, -20)
    expected = torch_reference.ddim(
        run.reference_network(), schedule.betas.tolist(), timesteps, run.noise, eta=eta, clip=1.0
    )
    assert_close(run.native(), expected, TOLERANCE[dtype])


@dtypes
@pytest.mark.parametrize("variance", ["small", "large", "learned"])
def test_unclipped_ddpm_is_algorithm_2(variance, dtype):
    schedule = SCHEDULES["linear"]
    table = make_table("ddpm", schedule, steps=50, variance=variance, clip=Clip.none())
    run = Run(table, SmallNetwork(SHAPE[0] * (1 + table.learned_variance), dtype), dtype)
    expected = torch_reference.ddpm(
        run.reference_network(), schedule.betas.tolist(), range(980, -1, -20), run.noise, variance=variance
    )
    assert_close(run.native(), expected, TOLERANCE[dtype])


@pytest.mark.parametrize("is_guided", [False, True], ids=["plain", "guided"])
@pytest.mark.parametrize("clip", [Clip.none(), Clip.clamp(0.9), Clip.dynamic(0.9, 1.5)], ids=lambda clip: clip.kind)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ddpm", {"variance": "small"}),
        ("ddpm", {"variance": "large"}),
        ("ddpm", {"variance": "learned"}),
        ("ddim", {"eta": 0.0}),
        ("ddim", {"eta": 0.5, "use_clipped_model_output": True}),
        ("ddim", {"eta": 1.0, "set_alpha_to_one": False}),
    ],
)
def test_numpy_twin_is_bit_equal(name, options, clip, is_guided):
    table = make_table(name, SCHEDULES["cosine"], steps=30, spacing="trailing", clip=clip, **options)
    run = Run(table, SmallNetwork(SHAPE[0] * (1 + table.learned_variance), torch.float32), torch.float32, is_guided)
    native, twin = run.native(), run.twin()
    assert np.isfinite(native).all()
    np.testing.assert_array_equal(native.view(np.uint32), twin.view(np.uint32))


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large", "learned_range"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_ddpm_loop_of_diffusers(monkeypatch, prediction_type, variance, name):
    schedule = SCHEDULES[name]
    table = make_table("ddpm", schedule, steps=50, variance=variance, prediction_type=prediction_type)
    run = Run(table, SmallNetwork(SHAPE[0] * (1 + table.learned_variance), torch.float32), torch.float32)
    scheduler = DDPMScheduler(
        trained_betas=schedule.betas, variance_type=variance, prediction_type=prediction_type, clip_sample=True
    )
    scheduler.set_timesteps(50)
    network, x = run.reference_network(), run.noise(0)
    for row, t in enumerate(scheduler.timesteps):
        monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, row=row, **__: run.noise(row + 1))
        x = scheduler.step(network(x, t), t, x).prev_sample
    assert_close(run.native(), x, TOLERANCE_DIFFUSERS)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("use_clipped_model_output", [False, True])
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_ddim_loop_of_diffusers(prediction_type, use_clipped_model_output, eta, name):
    schedule = SCHEDULES[name]
    options = {"eta": eta, "use_clipped_model_output": use_clipped_model_output}
    table = make_table("ddim", schedule, steps=50, prediction_type=prediction_type, **options)
    run = Run(table, SmallNetwork(SHAPE[0], torch.float32), torch.float32)
    scheduler = DDIMScheduler(trained_betas=schedule.betas, prediction_type=prediction_type, clip_sample=True)
    scheduler.set_timesteps(50)
    network, x = run.reference_network(), run.noise(0)
    for row, t in enumerate(scheduler.timesteps):
        x = scheduler.step(network(x, t), t, x, variance_noise=run.noise(row + 1), **options).prev_sample
    assert_close(run.native(), x, TOLERANCE_DIFFUSERS)


def test_a_wrong_coefficient_is_seen():
    """The comparison can fail: one row's noise off by 1 part in 1000."""
    schedule = SCHEDULES["linear"]
    table = make_table("ddpm", schedule, steps=50)
    rows = table.rows.copy()
    rows[40, _native.STEP_COLUMNS.index("s")] *= 1.001
    run = Run(StepTable(rows, clip=table.clip), SmallNetwork(SHAPE[0], torch.float64), torch.float64)
    expected = torch_reference.ddpm(
        run.reference_network(), schedule.betas.tolist(), range(980, -1, -20), run.noise, variance="small", clip=1.0
    )
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_close(run.native(), expected, TOLERANCE[torch.float64])
