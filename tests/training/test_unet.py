"""Every option of the U-Net builds a network with the promised shapes and invariances."""

import json
import math
from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pysdk.errors import OptionError
from pysdk.training.unet import UNet, UNetConfig, timestep_embedding

TINY: dict[str, Any] = {
    "image_shape": (1, 8, 8),
    "model_channels": 8,
    "channel_mult": (1, 2),
    "num_res_blocks": 1,
    "attention_levels": (),
    "head_channels": 8,
    "norm_groups": 4,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "scale and shift": {"scale_shift_norm": True},
    "pooling": {"resample": "pool"},
    "resampling blocks": {"resample": "resblock"},
    "resampling blocks with scale and shift": {"resample": "resblock", "scale_shift_norm": True},
    "learned variance": {"learn_variance": True},
    "colour": {"image_shape": (3, 8, 8), "learn_variance": True},
    "not square": {"image_shape": (1, 4, 12)},
    "classes": {"num_classes": 3},
    "classes and null label": {"num_classes": 3, "null_label": True},
    "blocks per level": {"num_res_blocks": (0, 2)},
    "attention everywhere": {"attention_levels": (0, 1), "head_channels": 4},
    "one level": {"channel_mult": (2,), "num_res_blocks": 2},
    "three levels": {"channel_mult": (1, 2, 2), "attention_levels": (2,), "num_res_blocks": (1, 0, 1)},
    "dropout": {"dropout": 0.5},
    "odd embedding": {"model_channels": 9, "norm_groups": 3, "head_channels": 9},
}


def network(options: dict[str, Any]) -> UNet:
    """In evaluation mode, with the zero weights replaced so that every path counts."""
    model = UNet(UNetConfig(**{**TINY, **options})).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def inputs(model: UNet, batch: int = 3) -> tuple[Tensor, Tensor, Tensor | None]:
    classes = model.config.num_classes
    label = None if classes is None else torch.arange(batch) % (classes + model.config.null_label)
    return torch.randn(batch, *model.config.image_shape), torch.tensor([0.0, 7.0, 999.0])[:batch], label


each_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


@each_option
def test_output_has_the_image_shape_and_out_channels(options: dict[str, Any]) -> None:
    model = network(options)
    x, t, label = inputs(model)
    out = model(x, t, label)
    assert out.shape == (3, model.config.out_channels, *model.config.image_shape[1:])
    assert out.dtype == torch.float32
    assert out.isfinite().all()
    assert model.config.out_channels == model.config.image_shape[0] * (2 if model.config.learn_variance else 1)


@each_option
def test_one_timestep_serves_the_whole_batch(options: dict[str, Any]) -> None:
    model = network(options)
    x, _, label = inputs(model)
    one, many = model(x, torch.tensor([42.0]), label), model(x, torch.full((3,), 42.0), label)
    torch.testing.assert_close(one, many, rtol=1e-5, atol=1e-5)


@each_option
def test_images_of_a_batch_do_not_see_each_other(options: dict[str, Any]) -> None:
    model = network(options)
    x, t, label = inputs(model)
    together = model(x, t, label)
    for i in range(3):
        rows = slice(i, i + 1)
        alone = model(x[rows], t[rows], None if label is None else label[rows])
        torch.testing.assert_close(together[rows], alone, rtol=1e-4, atol=1e-4)


@each_option
def test_fresh_network_returns_zeros(options: dict[str, Any]) -> None:
    model = UNet(UNetConfig(**{**TINY, **options}))
    assert not model(*inputs(model)).any()


@each_option
def test_config_survives_json(options: dict[str, Any]) -> None:
    config = UNetConfig(**{**TINY, **options})
    assert UNetConfig(**json.loads(json.dumps(asdict(config)))) == config


@each_option
def test_every_parameter_gets_a_gradient(options: dict[str, Any]) -> None:
    model = network(options).train()
    model(*inputs(model)).square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_timestep_and_label_matter() -> None:
    model = network(OPTIONS["classes and null label"])
    x, t, _ = inputs(model, 1)
    outputs = [model(x, t, torch.tensor([label])) for label in range(4)] + [model(x, t + 1, torch.tensor([0]))]
    for i, first in enumerate(outputs):
        assert all((first - second).abs().max() > 1e-4 for second in outputs[:i])


def test_blocks_per_level_are_counted() -> None:
    assert UNetConfig(**TINY).blocks_per_level == (1, 1)
    config = UNetConfig(**{**TINY, "num_res_blocks": (0, 2)})
    model = UNet(config)
    assert len(model.down) == 0 + 1 + 2  # blocks and one resampler
    assert len(model.up) == 1 + 3


def test_resampling_without_weights_has_none() -> None:
    pooled, convolved = (UNet(UNetConfig(**{**TINY, "resample": kind})) for kind in ("pool", "conv"))
    count = [sum(parameter.numel() for parameter in model.parameters()) for model in (pooled, convolved)]
    assert count[1] - count[0] == (8 * 8 * 9 + 8) + (16 * 16 * 9 + 16)


def test_dropout_acts_in_training_only() -> None:
    model = network(OPTIONS["dropout"])
    x, t, _ = inputs(model)
    assert torch.equal(model(x, t), model(x, t))
    model.train()
    assert not torch.equal(model(x, t), model(x, t))


def test_timestep_embedding_is_the_sinusoid() -> None:
    embedding = timestep_embedding(torch.tensor([0.0, 3.0]), 5)
    frequencies = [1.0, math.exp(-math.log(10000.0) / 2)]
    expected = [[math.cos(t * f) for f in frequencies] + [math.sin(t * f) for f in frequencies] + [0.0] for t in (0, 3)]
    torch.testing.assert_close(embedding, torch.tensor(expected))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_res_blocks": (1, 1, 1)}, "num_res_blocks"),
        ({"image_shape": (1, 9, 8)}, "multiples of 2"),
        ({"norm_groups": 3}, "norm_groups=3"),
        ({"norm_groups": 0}, "norm_groups is 0"),
        ({"head_channels": 0}, "head_channels is 0"),
        ({"channel_mult": ()}, r"channel_mult is \(\)"),
        ({"channel_mult": (1, -1)}, "channel_mult is .*above 0 for each level"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"resample": "nearest"}, "'nearest'"),
        ({"null_label": True}, "num_classes is None"),
    ],
)
def test_bad_config_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        UNetConfig(**{**TINY, **options})


def test_heads_must_divide_the_channels() -> None:
    with pytest.raises(OptionError, match="head_channels"):
        UNet(UNetConfig(**{**TINY, "head_channels": 5}))


def test_conditional_network_needs_labels() -> None:
    model = network(OPTIONS["classes"])
    x, t, _ = inputs(model)
    with pytest.raises(OptionError, match="pass label"):
        model(x, t)
