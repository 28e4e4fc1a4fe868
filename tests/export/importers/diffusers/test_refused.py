"""Folders of diffusers that cannot be built: each gets its own sentence, and no code in them runs."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from kit.importers.diffusers_pipelines import SMALL, make_unet, save_pipeline
from safetensors.torch import load_file, save_file

from pysdk.errors import CheckpointError, MissingDependencyError, OptionError
from pysdk.export import build_engine
from pysdk.export.build import build
from pysdk.export.importers import load_network
from pysdk.export.importers.diffusers import folder, model

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def unet():
    return make_unet(**SMALL)


@pytest.fixture
def pipeline(unet, tmp_path) -> Path:
    return Path(save_pipeline(tmp_path / "pipeline", unet, DDPMScheduler()))


def edit(path: Path, **changes: object) -> None:
    """Change fields of a JSON file; a value of ... removes one."""
    data = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in data.items() if value is not ...}))


def edit_weights(path: Path, **changes: torch.Tensor | None) -> None:
    tensors = {**load_file(path), **changes}
    save_file({key: value for key, value in tensors.items() if value is not None}, path)


def refused(folder: Path, message: str, error: type[Exception] = CheckpointError, **options: str) -> None:
    with pytest.raises(error, match=message):
        load_network(str(folder), options)


# Weights.


def test_missing_extra_and_misshapen_tensors(pipeline):
    weights = pipeline / "unet" / WEIGHTS
    original = weights.read_bytes()
    for change, message in (
        ({"conv_out.bias": None}, r"lacks 1 tensors, such as 'conv_out.bias': is config.json its own"),
        ({"extra.weight": torch.zeros(2)}, "has unknown 1 tensors, such as 'extra.weight'"),
        ({"conv_out.bias": torch.zeros(4)}, r"'conv_out.bias' of shape \(4,\), config.json makes it \(3,\)"),
    ):
        edit_weights(weights, **change)
        refused(pipeline, message)
        weights.write_bytes(original)
    weights.write_bytes(original[:1000])
    refused(pipeline, "is not a safetensors file")


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("plain_pickle", [False, True])
def test_code_in_a_pickle_is_never_run(pipeline, tmp_path, plain_pickle):
    (pipeline / "unet" / WEIGHTS).unlink()
    created = tmp_path / "created"
    contents = {"conv_out.bias": Payload(created)}
    path = pipeline / "unet" / "diffusion_pytorch_model.bin"
    if plain_pickle:
        path.write_bytes(pickle.dumps(contents))
    else:
        torch.save(contents, path)
    refused(pipeline, "pickles Python code|not a file of tensors")
    assert not created.exists()


def test_git_lfs_pointer_and_no_weights(pipeline):
    weights = pipeline / "unet" / WEIGHTS
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    refused(pipeline, "is a Git LFS pointer.*git lfs pull")
    weights.unlink()
    refused(pipeline, "has no weights, expected diffusion_pytorch_model.safetensors or diffusion_pytorch_model.bin$")
    (weights.parent / "diffusion_pytorch_model.fp16.safetensors").touch()
    refused(pipeline, "it has diffusion_pytorch_model.fp16.safetensors: save it without `variant`")


def test_weights_of_old_and_half_precision_files(unet, pipeline):
    """Attention tensors had other names once; float16 is widened."""
    weights = pipeline / "unet" / WEIGHTS
    expected = unet.state_dict()
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    renamed = {}
    for key, value in expected.items():
        for new, name in old.items():
            key = key.replace(new, name)  # noqa: PLW2901
        renamed[key] = value.half().contiguous()
    assert renamed.keys() != expected.keys()
    save_file(renamed, weights)
    found = load_network(str(pipeline), {}).module.unet.state_dict()
    for key, value in expected.items():
        torch.testing.assert_close(found[key.replace("time_proj", "time_proj.projection")], value.half().float())


# Configs.


def test_flat_folders_are_read(pipeline):
    """The first pipelines on the Hub have all files in one folder."""
    for path in [*pipeline.glob("unet/*"), *pipeline.glob("scheduler/*")]:
        path.rename(pipeline / path.name)
    (pipeline / "unet").rmdir()
    (pipeline / "scheduler").rmdir()
    assert load_network(str(pipeline), {}).defaults.solver == "ddpm"


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("model_index.json", {"_class_name": "StableDiffusionPipeline"}, "'StableDiffusionPipeline'.*text encoder"),
        ("model_index.json", {"_class_name": ["mine", "Mine"]}, r"\['mine', 'Mine'\]; only DDPMPipeline"),
        ("model_index.json", {"vqvae": ["diffusers", "VQModel"]}, "part 'vqvae', which a DDPMPipeline has not"),
        (
            "scheduler/scheduler_config.json",
            {"_class_name": "PNDMScheduler"},
            "'PNDMScheduler', only DDPM.*from_config",
        ),
        ("scheduler/scheduler_config.json", {"novel": 3}, "'novel' .3. is not one of DDPMScheduler"),
        (
            "scheduler/scheduler_config.json",
            {"variance_type": "learned_range"},
            "3 channels in and 3 out, expected 6 out",
        ),
        ("unet/config.json", {"_class_name": "UNet2DConditionModel"}, "only networks of class UNet2DModel"),
        ("unet/config.json", {"novel": 3}, "'novel' .3. is not one of UNet2DModel"),
        ("unet/config.json", {"out_channels": 6}, "3 channels in and 6 out, expected 3 out for solver ddpm"),
        ("unet/config.json", {"time_embedding_type": "fourier"}, "'fourier'.*logarithm"),
        ("unet/config.json", {"class_embed_type": "timestep"}, "class_embed_type is 'timestep'"),
        ("unet/config.json", {"down_block_types": ["CrossAttnDownBlock2D"] * 2}, "attends to a text"),
        ("unet/config.json", {"down_block_types": ["DownEncoderBlock2D"] * 2}, "has no skip connections"),
        ("unet/config.json", {"block_out_channels": [8]}, "diffusers cannot make this network: Must provide the same"),
        ("unet/config.json", {"sample_size": 7}, r"does not run on images of \(3, 7, 7\)"),
        ("unet/config.json", {"sample_size": None}, "does not say its sample_size; give --sample_size 32"),
        ("unet/config.json", {"sample_size": "big"}, "sample_size is 'big', expected one number"),
        ("unet/config.json", {"in_channels": "3"}, "in_channels is '3'"),
    ],
)
def test_configs(pipeline, file, changes, message):
    edit(pipeline / file, **changes)
    refused(pipeline, message)


def test_damaged_json(pipeline):
    for text, message in (("{", "is not readable JSON"), ("[]", "holds a list"), ("", "is empty")):
        (pipeline / "unet" / "config.json").write_text(text)
        refused(pipeline, message)
    (pipeline / "unet" / "config.json").unlink()
    refused(pipeline, "there is no file .*config.json")


# Options.


def test_a_network_alone_takes_the_scheduler_as_options(unet, tmp_path):
    unet.save_pretrained(tmp_path)
    network = load_network(str(tmp_path), {})
    assert (network.defaults.solver, network.defaults.steps, network.schedule.name) == ("ddpm", 1000, "linear")
    options = {"scheduler": "DDIMScheduler", "beta_schedule": "scaled_linear", "beta_start": "0.001"}
    network = load_network(str(tmp_path), {**options, "prediction_type": "v_prediction", "clip_sample": "False"})
    assert (network.defaults.solver, network.defaults.steps, network.schedule.name) == ("ddim", 50, "scaled_linear")
    assert (network.model.prediction_type, network.defaults.clip.kind) == ("v_prediction", "none")
    assert network.schedule.betas[0] == pytest.approx(0.001, rel=1e-3)
    refused(tmp_path, "UNet2DModel has no option 'speed'; it has num_train_timesteps,", OptionError, speed="2")
    refused(tmp_path, "the scheduler is a 'Euler'", scheduler="Euler")
    refused(tmp_path, "null_label is '0', expected one of the network's 0 classes", OptionError, null_label="0")


def test_options_that_the_files_answer(pipeline):
    refused(
        pipeline, "'beta_start' is no option of 'pipeline', whose scheduler_config.json", OptionError, beta_start="1"
    )
    refused(pipeline, "sample_size is '32', but 'pipeline' says", OptionError, sample_size="32")
    edit(pipeline / "unet" / "config.json", sample_size=None)
    assert load_network(str(pipeline), {"sample_size": "16"}).model.shape == (3, 16, 16)
    assert load_network(str(pipeline), {"sample_size": "8,16"}).model.shape == (3, 8, 16)


@pytest.mark.parametrize(
    ("index", "scheduler", "solver", "steps"),
    [
        ("DDPMPipeline", DDIMScheduler, "ddim", 1000),
        ("DDIMPipeline", DDPMScheduler, "ddim", 50),
    ],
)
def test_pipelines_with_the_scheduler_of_the_other(unet, tmp_path, index, scheduler, solver, steps):
    """A DDPMPipeline runs what it has, a DDIMPipeline converts it."""
    folder = save_pipeline(tmp_path, unet, scheduler(beta_end=0.01))
    edit(tmp_path / "model_index.json", _class_name=index)
    network = load_network(folder, {})
    assert (network.defaults.solver, network.defaults.steps) == (solver, steps)


# The Hub.


def test_the_hub_offline_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    refused(Path("google/ddpm-cifar10-32"), "is no local folder, and could not be fetched from the Hugging Face Hub")


def test_the_hub_sends_configs_first_and_pickles_last(pipeline, monkeypatch):
    asked = []

    def download(repository, revision, patterns):
        asked.append((repository, revision, patterns))
        return pipeline

    monkeypatch.setattr(folder, "download", download)
    network = load_network("somebody/pipeline", {"revision": "v1"})
    assert network.model.name == "somebody/pipeline"
    assert asked[0] == ("somebody/pipeline", "v1", folder.CONFIG_FILES)
    assert [patterns[0] for _, _, patterns in asked[1:]] == [f"unet/{WEIGHTS}"]


@pytest.mark.parametrize(
    ("source", "matches"),
    [
        ("google/ddpm-cifar10-32", True),
        ("network.pt", False),
        ("a/network.pt", False),
        ("a/b/c", False),
        ("/a/b", False),
    ],
)
def test_what_is_taken_for_a_hub_id(source, matches):
    assert model.matches(source) == matches


def test_diffusers_is_optional(pipeline, monkeypatch, tmp_path):
    monkeypatch.setattr(
        "pysdk.distribution.importlib.util.find_spec", lambda name: None if name == "diffusers" else name
    )
    with pytest.raises(MissingDependencyError, match=r"pip install 'pysdk-diffusion\[diffusers\]'"):
        build(pipeline, tmp_path / "engine.plan")


# The command.


def test_dry_run_says_what_would_be_built(pipeline, tmp_path):
    plan = tmp_path / "engine.plan"
    result = CliRunner().invoke(build_engine.command, [str(pipeline), "--dry-run", "-o", str(plan), "--steps", "20"])
    assert result.exit_code == 0, result.output
    count = sum(parameter.numel() for parameter in UNet2DModel(**SMALL).parameters())
    assert f"pipeline: 3x8x4, 3 channels out, {count:,} parameters" in result.output
    assert "linear, 1000 timesteps" in result.output
    assert "ddpm, 20 steps, spacing=leading, final_noise=True" in result.output
    assert not plan.exists()
