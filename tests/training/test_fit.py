"""The training loop: it learns, averages, warms up, drops labels and names what does not fit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kit.tiny_run import CONFIG, MODEL, dataset, run
from torch import nn

from pysdk.datasets.dataset import Dataset
from pysdk.errors import NumericalError, OptionError
from pysdk.training.checkpoint import ModelConfig, load_model, read_tensors
from pysdk.training.fit import Batches, FitConfig, Trainer, fit, states

CPU = torch.device("cpu")


def batch(trainer: Trainer) -> tuple[torch.Tensor, torch.Tensor | None, torch.Generator]:
    return Batches(dataset(), trainer.config, 3).at(trainer.step)


def test_loss_falls_and_the_model_is_written(tmp_path: Path) -> None:
    trainer = run(tmp_path, steps=150, save_every=150, loss="simple", learning_rate=5e-3)
    losses = [loss for _, loss in trainer.history]
    assert [step for step, _ in trainer.history] == [50, 100, 150]
    assert losses[-1] < 0.5 * losses[0]
    assert trainer.seconds > 0
    config, model = load_model(tmp_path)
    assert config == MODEL
    assert all(torch.equal(tensor, trainer.average[name]) for name, tensor in model.state_dict().items())
    assert [state.name for state in states(tmp_path)] == ["step-00000150"]


def test_average_follows_the_weights() -> None:
    """average += (1 - d) (weights - average), d = min(decay, (1 + k) / (10 + k)) after step k = 1, 2, ..."""
    trainer = Trainer(MODEL, replace(CONFIG, ema_decay=0.2), CPU)
    name = "stem.weight"
    expected = trainer.network.state_dict()[name].clone()
    for k in range(1, 5):
        trainer.advance(*batch(trainer))
        decay = min(0.2, (1 + k) / (10 + k))
        expected = decay * expected + (1 - decay) * trainer.network.state_dict()[name]
        torch.testing.assert_close(trainer.average[name], expected)
    assert not torch.equal(trainer.average[name], trainer.network.state_dict()[name])


def test_learning_rate_warms_up() -> None:
    trainer = Trainer(MODEL, replace(CONFIG, warmup=4, learning_rate=0.1), CPU)
    rates = []
    for _ in range(6):
        trainer.advance(*batch(trainer))
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


def test_gradient_is_clipped() -> None:
    trainer = Trainer(MODEL, replace(CONFIG, grad_clip=1e-3), CPU)
    trainer.advance(*batch(trainer))
    norms = [parameter.grad.norm() for parameter in trainer.network.parameters() if parameter.grad is not None]
    assert float(torch.stack(norms).norm()) == pytest.approx(1e-3, rel=1e-3)


def test_bfloat16_trains(tmp_path: Path) -> None:
    trainer = run(tmp_path, steps=3, amp="bfloat16")
    assert all(tensor.dtype == torch.float32 for tensor in trainer.average.values())
    assert all(tensor.isfinite().all() for tensor in trainer.average.values())


def test_share_of_dropped_labels() -> None:
    data = dataset(3000)
    batches = Batches(data, replace(CONFIG, batch_size=3000, label_dropout=0.2, flip=False), 3)
    _, labels, _ = batches.at(0)
    assert labels is not None
    assert float((labels == 3).float().mean()) == pytest.approx(0.2, abs=0.03)
    _, kept, _ = Batches(data, replace(CONFIG, batch_size=3000, flip=False), None).at(0)
    assert kept is not None
    assert kept.max() == 2


def test_each_image_once_an_epoch_in_a_new_order() -> None:
    data = Dataset(np.arange(40, dtype=np.uint8)[:, None, None, None])
    batches = Batches(data, replace(CONFIG, flip=False), None)
    epochs = [
        torch.cat([batches.at(10 * epoch + step)[0] for step in range(10)]).flatten().tolist() for epoch in range(2)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == [float(np.float32(i) / 127.5 - 1) for i in range(40)]
    assert epochs[0] != epochs[1]


def test_half_of_the_images_are_mirrored_together_with_nothing_else() -> None:
    data = Dataset(np.tile(np.array([0, 255], np.uint8), (2000, 1, 1, 1)))
    images, labels, _ = Batches(data, replace(CONFIG, batch_size=2000), None).at(0)
    assert labels is None
    assert float((images[:, 0, 0, 0] == 1).float().mean()) == pytest.approx(0.5, abs=0.05)
    assert torch.equal(images.sum(3), torch.zeros(2000, 1, 1))


def test_batches_depend_on_seed_and_step_alone() -> None:
    first, second = Batches(dataset(), CONFIG, 3), Batches(dataset(), CONFIG, 3)
    for step in range(25):
        second.at(step)
    for one, two in zip(first.at(7)[:2], second.at(7)[:2], strict=True):
        assert one is not None
        assert two is not None
        assert torch.equal(one, two)
    other = Batches(dataset(), replace(CONFIG, seed=6), 3)
    assert not torch.equal(first.at(7)[0], other.at(7)[0])


def test_unconditional_network_ignores_labels(tmp_path: Path) -> None:
    model = ModelConfig("tiny", replace(MODEL.unet, num_classes=None, null_label=False), "cosine", {"timesteps": 50})
    fit(dataset(), model, replace(CONFIG, steps=2), tmp_path, progress=False)
    assert load_model(tmp_path)[0] == model


@pytest.mark.parametrize("save_every", [1, 100])
def test_nan_stops_and_keeps_the_last_good_state(
    tmp_path: Path, save_every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, steps=5, save_every=5)
    at = Batches.at

    def poisoned(self: Batches, step: int) -> Any:
        images, labels, generator = at(self, step)
        return images * (np.nan if step >= 8 else 1), labels, generator

    monkeypatch.setattr(Batches, "at", poisoned)
    with pytest.raises(NumericalError, match="nan"):
        run(tmp_path, steps=60, save_every=save_every)
    assert len(states(tmp_path)) == 1
    good = read_tensors(states(tmp_path)[0] / "state.safetensors")
    assert all(tensor.isfinite().all() for tensor in good.values())
    assert all(tensor.isfinite().all() for tensor in load_model(tmp_path)[1].state_dict().values())


def test_broken_gradient_is_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finite loss with a NaN gradient: the weights show it, before the next loss would."""

    def poison(parameters: Any, limit: float) -> None:
        for parameter in parameters:
            parameter.grad.fill_(np.nan)

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", poison)
    with pytest.raises(NumericalError):
        run(tmp_path, steps=1)
    assert states(tmp_path) == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (Dataset(np.zeros((9, 1, 8, 4), np.uint8)), r"images are \(1, 8, 4\) .* takes \(1, 8, 8\)"),
        (Dataset(np.zeros((9, 1, 8, 8), np.uint8)), "network has 3 classes, the data 0"),
        (Dataset(np.zeros((9, 1, 8, 8), np.uint8), np.arange(9)), "network has 3 classes, the data 9"),
        (Dataset(np.zeros((3, 1, 8, 8), np.uint8), np.arange(3)), "batch_size is 4 but there are 3 images"),
    ],
)
def test_data_that_do_not_fit_the_network(tmp_path: Path, data: Dataset, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        fit(data, MODEL, CONFIG, tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"save_every": -1}, "save_every is -1"),
        ({"warmup": -1}, "warmup is -1"),
        ({"weight_decay": np.nan}, "weight_decay is nan"),
        ({"seed": -1}, "seed is -1; expected at least 0"),
        ({"learning_rate": np.nan}, "learning_rate is nan; expected a number above 0"),
        ({"grad_clip": 0.0}, "grad_clip is 0.0"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0"),
        ({"label_dropout": -0.1}, "label_dropout is -0.1"),
        ({"amp": "float16"}, "amp is 'float16'"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        FitConfig(**change)
