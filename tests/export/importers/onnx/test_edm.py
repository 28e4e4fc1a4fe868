"""Networks of sigma as ONNX files: a small torch network, exported raw and whole, sampled like EDM's own loop."""

import warnings

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from pysdk import Sampler
from pysdk.errors import CheckpointError, OptionError
from pysdk.export.build import build
from pysdk.export.importers import load_network

SHAPE = (3, 8, 8)
SIGMA_DATA = 0.6
SIGMA_MIN, SIGMA_MAX, RHO = 0.01, 40.0, 5.0
LEVELS = {"sigma_min": str(SIGMA_MIN), "sigma_max": str(SIGMA_MAX), "rho": str(RHO)}


class RawNetwork(nn.Module):
    """F(c_in x, c_noise): two convolutions with the noise level between."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)
        self.level = nn.Linear(2, 8)

    def forward(self, x, c_noise):
        angle = c_noise.reshape(-1, 1)
        level = self.level(torch.cat([torch.sin(angle), torch.cos(angle)], dim=1))[:, :, None, None]
        return self.last(nn.functional.silu(self.first(x) + level))


class WholeDenoiser(nn.Module):
    """D(x, sigma), written out from EDM's equation 7."""

    def __init__(self, raw):
        super().__init__()
        self.raw = raw

    def forward(self, x, sigma):
        variance = sigma.reshape(-1, 1, 1, 1) ** 2
        total = variance + SIGMA_DATA**2
        raw = self.raw(x / total.sqrt(), sigma.log() / 4)
        return SIGMA_DATA**2 / total * x + variance.sqrt() * SIGMA_DATA / total.sqrt() * raw


def edm_sampler(denoiser, latents, steps):
    """EDM's Algorithm 1 with eq. 5, float64 but for the network."""
    index = np.arange(steps)
    levels = (SIGMA_MAX ** (1 / RHO) + index / (steps - 1) * (SIGMA_MIN ** (1 / RHO) - SIGMA_MAX ** (1 / RHO))) ** RHO

    def ask(x, sigma):
        with torch.no_grad():
            return denoiser(torch.tensor(x, dtype=torch.float32), torch.full((len(x),), sigma)).double().numpy()

    x = latents * levels[0]
    for now, after in zip(levels, np.append(levels[1:], 0.0), strict=True):
        slope = (x - ask(x, now)) / now
        ahead = x + (after - now) * slope
        x = x + (after - now) * (slope + (ahead - ask(ahead, after)) / after) / 2 if after > 0 else ahead
    return x


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """The torch denoiser, and the ONNX files of its two forms by --preconditioning."""
    torch.manual_seed(0)
    raw = RawNetwork().eval()
    whole = WholeDenoiser(raw).eval()
    folder = tmp_path_factory.mktemp("edm")
    files = {}
    for name, module, level in (("edm", raw, "noise_labels"), ("denoiser", whole, "sigma")):
        files[name] = str(folder / f"{name}.onnx")
        batch = torch.export.Dim("batch")
        inputs = (torch.randn(2, *SHAPE), torch.tensor([0.5, 0.7]))
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's, on its own internals
            program = torch.onnx.export(
                module,
                inputs,
                dynamo=True,
                input_names=["x", level],
                output_names=["out"],
                dynamic_shapes=({0: batch}, {0: batch}),
                verbose=False,
            )
        onnx.save(program.model_proto, files[name])
    return whole, files


def options(form, **changes):
    return {"preconditioning": form, **LEVELS, **({"sigma_data": str(SIGMA_DATA)} if form == "edm" else {}), **changes}


@pytest.mark.parametrize("form", ["edm", "denoiser"])
def test_samples_like_its_own_loop(networks, tmp_path, form):
    denoiser, files = networks
    manifest = build(files[form], tmp_path / "edm.plan", importer_options=options(form))
    assert (manifest.defaults.solver, manifest.defaults.steps) == ("heun", 18)
    assert manifest.defaults.clip.kind == "none"
    noise = np.random.default_rng(0).standard_normal((40, 3, *SHAPE)).astype(np.float32)
    with Sampler(tmp_path / "edm.plan", threads=1) as sampler:
        for steps in (2, 18):
            images = sampler.sample(3, steps=steps, noise=noise[: 2 * steps], output="float32", progress=False)
            expected = edm_sampler(denoiser, noise[0].astype(np.float64), steps)
            assert np.abs(images - expected).max() < 1e-5 * max(1, np.abs(expected).max())
        alone = sampler.sample(1, start=2, output="float32", progress=False)
        np.testing.assert_array_equal(sampler.sample(3, output="float32", progress=False)[2:], alone)
        with pytest.raises(OptionError, match="solver 'ddim' needs timesteps, this is a network of sigma; use one of"):
            sampler.sample(1, solver="ddim")
        with pytest.raises(OptionError, match="spacing would not be used"):
            sampler.sample(1, spacing="trailing")
        assert f"edm, sigma {SIGMA_MAX:g} to {SIGMA_MIN:g}" in sampler.plan.summary()
        assert sampler.info["schedule"]["sigma_max"] == SIGMA_MAX


def test_both_forms_are_one_network(networks, tmp_path):
    _, files = networks
    images = []
    for form in files:
        build(files[form], tmp_path / f"{form}.plan", importer_options=options(form))
        with Sampler(tmp_path / f"{form}.plan", threads=1) as sampler:
            images.append(sampler.sample(2, solver="dpmpp_2m", steps=6, output="float32", progress=False))
    np.testing.assert_allclose(images[0], images[1], rtol=0, atol=1e-4 * np.abs(images[0]).max())


@pytest.mark.parametrize(
    ("form", "changes", "reason"),
    [
        ("edm", {"prediction_type": "epsilon"}, "--prediction_type is given with --preconditioning edm"),
        ("edm", {"schedule": "linear"}, "--schedule is given with --preconditioning edm"),
        ("denoiser", {"sigma_data": "0.5"}, "--sigma_data is given, but a whole denoiser"),
        ("edm", {"sigma_data": "half"}, "--sigma_data is 'half', expected a number"),
        ("edm", {"timesteps": "10"}, "an ONNX file takes no option --timesteps"),
    ],
)
def test_options_refused(networks, form, changes, reason):
    with pytest.raises(OptionError) as caught:
        load_network(networks[1][form], options(form, **changes))
    assert reason in str(caught.value)


def test_a_whole_number_is_no_sigma(networks, tmp_path):
    model = onnx.load(networks[1]["denoiser"])
    [level] = [value for value in model.graph.input if value.name == "sigma"]
    level.type.tensor_type.elem_type = onnx.TensorProto.INT64
    cast = onnx.helper.make_node("Cast", ["sigma"], ["sigma_float"], to=onnx.TensorProto.FLOAT)
    for node in model.graph.node:
        node.input[:] = ["sigma_float" if name == "sigma" else name for name in node.input]
    model.graph.node.insert(0, cast)
    onnx.save(model, str(tmp_path / "whole.onnx"))
    with pytest.raises(CheckpointError, match="input 'sigma' is int64, which cannot be"):
        load_network(str(tmp_path / "whole.onnx"), options("denoiser"))
