"""What the importer of OpenAI's checkpoints does not take: flags, files and weights, each with its own sentence."""

from pathlib import Path
from typing import Any

import pytest
import torch
from kit.importers.openai_weights import Golden

from pysdk.errors import CheckpointError, OptionError
from pysdk.export.importers import load_network
from pysdk.export.importers.openai.flags import parse_flags


@pytest.fixture
def guided(tmp_path):
    return Golden("guided", tmp_path)


def defaults_of(guided: Golden, **flags: str) -> Any:
    return load_network(str(guided.path), {**guided.flags, **flags})


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ({"lr": "1e-4"}, "--lr cannot be used: it is a flag of training"),
        ({"num_samples": "50000"}, "--num_samples cannot be used: say -n to `pysdk sample`"),
        ({"classifier_scale": "1.0"}, "classifier guidance is not built into plans yet"),
        ({"num_chanels": "128"}, "--num_chanels cannot be used: neither improved-diffusion nor guided-diffusion"),
        ({"learn_sigma": "maybe"}, "--learn_sigma is 'maybe', expected True or False"),
        ({"num_channels": "wide"}, "--num_channels is 'wide', expected an integer"),
        ({"num_heads": "0"}, "--num_heads is 0, expected at least 1"),
        ({"attention_resolutions": "16;8"}, "--attention_resolutions is '16;8', expected numbers"),
        ({"noise_schedule": "sqrt"}, "--noise_schedule is 'sqrt', expected linear or cosine"),
        ({"timestep_respacing": "ddim999"}, "--timestep_respacing: steps is 'ddim999'"),
        ({"image_size": "48"}, "--image_size is 48, for which guided-diffusion has no channel_mult"),
        ({"repository": "stable-diffusion"}, "--repository is 'stable-diffusion'"),
    ],
)
def test_flags_refused(flags, reason):
    with pytest.raises(OptionError) as caught:
        parse_flags(flags)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("flag", "value", "reason"),
    [
        ("num_channels", "64", "--num_channels is 64, but the weights"),
        ("num_res_blocks", "3", "--num_res_blocks is 3, but the weights"),
        ("learn_sigma", "False", "--learn_sigma is False, but the weights"),
        ("class_cond", "False", "--class_cond is False, but the weights"),
        ("use_scale_shift_norm", "False", "--use_scale_shift_norm is False, but the weights"),
        ("resblock_updown", "False", "--resblock_updown is False, but the weights"),
        ("channel_mult", "1,3", "--channel_mult is 1,3, but the weights"),
        ("channel_mult", "1,2,2", "--channel_mult is 1,2,2, but the weights"),
        ("attention_resolutions", "8", "--attention_resolutions is 8, but the weights"),
        ("image_size", "32", "--attention_resolutions is 16, but the weights"),
    ],
)
def test_flags_that_contradict_the_weights(guided, flag, value, reason):
    with pytest.raises(CheckpointError) as caught:
        defaults_of(guided, **{flag: value})
    assert reason in str(caught.value)
    assert "guided.pt" in str(caught.value)


def test_heads_that_do_not_divide(guided):
    with pytest.raises(OptionError, match="--num_head_channels is 48, which does not divide an attention of 32"):
        defaults_of(guided, num_head_channels="48")


def test_missing_extra_and_misshapen_tensors(guided):
    weights, name = guided.weights, "middle_block.1.norm.weight"
    guided.save({key: value for key, value in weights.items() if key != name})
    with pytest.raises(CheckpointError, match=f"lacks 1 tensors of this network: {name}"):
        defaults_of(guided)
    guided.save({**weights, "ema_decay": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="has 1 tensors this network does not have: ema_decay"):
        defaults_of(guided)
    guided.save({**weights, name: torch.zeros(31)})
    with pytest.raises(CheckpointError, match=rf"{name} has shape \(31,\), this network needs \(64,\)"):
        defaults_of(guided)


def test_super_resolution(guided):
    guided.save({**guided.weights, "input_blocks.0.0.weight": torch.zeros(32, 6, 3, 3)})
    with pytest.raises(CheckpointError, match="takes 6 channels: a super-resolution network"):
        defaults_of(guided)


class Payload:
    """Pickles as a call that leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_code_in_a_pickle_does_not_run(guided, tmp_path):
    mark = tmp_path / "ran"
    guided.save({**guided.weights, "payload": Payload(mark)})
    with pytest.raises(CheckpointError, match=r"pickles Python code or objects .* that is never loaded"):
        defaults_of(guided)
    assert not mark.exists()
    torch.load(guided.path, weights_only=False)
    assert mark.exists()  # the payload was a working one


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        ({"state": {}, "param_groups": [{"lr": 1e-4}]}, "is an optimizer's state"),
        ({"state_dict": {"w": torch.zeros(1)}, "epoch": 3}, "is a whole training state (state_dict, epoch)"),
        ({"step": 7, "model": {"model.init_conv.weight": torch.zeros(1)}, "ema": {}}, "of denoising-diffusion-pytorch"),
        ({"mid_attn.to_qkv.weight": torch.zeros(1)}, "of denoising-diffusion-pytorch"),
        ({"conv1.weight": torch.zeros(1)}, "is no network of improved-diffusion or guided-diffusion"),
        ({"lr": 0.1}, "'lr' is no tensor"),
        ({}, "holds an empty state dict"),
        (torch.zeros(3), "holds one Tensor, expected a state dict"),
    ],
)
def test_other_torch_files(guided, contents, reason):
    guided.save(contents)
    with pytest.raises(CheckpointError) as caught:
        defaults_of(guided)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "is a Git LFS pointer"),
        (b"", "is empty or cannot be read"),
        (b"no pickle at all", "is not a file of tensors written by torch.save"),
        (b"PK\x03\x04 cut short", "is not a file of tensors written by torch.save"),
    ],
)
def test_files_that_are_no_checkpoint(guided, contents, reason):
    guided.path.write_bytes(contents)
    with pytest.raises(CheckpointError) as caught:
        defaults_of(guided)
    assert reason in str(caught.value)


def test_no_file(guided):
    guided.path.unlink()
    with pytest.raises(CheckpointError, match="there is no file"):
        defaults_of(guided)
