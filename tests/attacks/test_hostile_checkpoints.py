"""Checkpoints that strangers made to fill the machine or to carry its files away in a plan."""

import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from pysdk.errors import CheckpointError, OptionError
from pysdk.export.importers.diffusers.unet import check_numbers
from pysdk.export.importers.openai.flags import parse_flags
from pysdk.export.importers.torch_file import read_state_dict
from pysdk.export.source_file import check_link, first_bytes

pytestmark = pytest.mark.timeout(20)
BYTEARRAY = b"\x80\x02cbuiltins\nbytearray\n\x8a\x06" + (2**44).to_bytes(6, "little") + b"\x85R."


def saved(folder: Path, tensors: object = None, **options: object) -> Path:
    torch.save({"a": torch.zeros(4)} if tensors is None else tensors, folder / "a.pt", **options)
    return folder / "a.pt"


def changed(path: Path, data: bytes, compression: int = zipfile.ZIP_STORED) -> None:
    """Another data.pkl in an archive of torch.save."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, old in members.items():
            archive.writestr(name, data if name.endswith("data.pkl") and data else old)


def test_plain_files_load_in_both_formats(tmp_path: Path) -> None:
    assert list(read_state_dict(saved(tmp_path))) == ["a"]
    assert list(read_state_dict(saved(tmp_path, _use_new_zipfile_serialization=False))) == ["a"]


@pytest.mark.parametrize(
    "data",
    [
        BYTEARRAY,
        pickle.dumps(Path("a"), protocol=2),
        b"\x80\x04\x8c\x08builtins\x94\x8c\tbytearray\x94\x93K\x05\x85R.",
        b"\x80\x02ctorch._utils\n_rebuild_meta_tensor_no_storage\n.",
        b"\x80\x02",
        b"",
    ],
)
def test_a_pickle_that_makes_more_than_tensors(tmp_path: Path, data: bytes) -> None:
    path = saved(tmp_path)
    changed(path, data or b"x")
    with pytest.raises(CheckpointError, match=r"never loaded|not a file of tensors") as caught:
        read_state_dict(path)
    assert "\n" not in str(caught.value)
    path.write_bytes(data or b"x")  # and as a file that is no archive
    with pytest.raises(CheckpointError, match=r"never loaded|not a file of tensors"):
        read_state_dict(path)


def test_members_that_are_compressed(tmp_path: Path) -> None:
    path = saved(tmp_path, {"a": torch.zeros(1000)})
    changed(path, b"", zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="compressed members"):
        read_state_dict(path)


def test_a_tensor_larger_than_its_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="save them unexpanded"):
        read_state_dict(saved(tmp_path, {"a": torch.zeros(1, dtype=torch.float16).expand(10**13)}))
    with pytest.raises(CheckpointError, match=r"pickles .*ComplexFloatStorage"):
        read_state_dict(saved(tmp_path, {"a": torch.zeros(3, dtype=torch.complex64)}))


def test_links_out_of_a_folder_but_into_the_cache_of_the_hub(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("key")
    folder = tmp_path / "cloned"
    folder.mkdir()
    (folder / "LICENSE").symlink_to(secret)
    with pytest.raises(CheckpointError, match="link out of its folder"):
        check_link(folder / "LICENSE", folder)
    (tmp_path / "named").symlink_to(folder)
    (folder / "config.json").write_text("{}")
    check_link(tmp_path / "named" / "config.json", tmp_path / "named")
    blobs, unet = tmp_path / "models--a" / "blobs", tmp_path / "models--a" / "snapshots" / "abc" / "unet"
    blobs.mkdir(parents=True)
    unet.mkdir(parents=True)
    (blobs / "123").write_text("{}")
    (unet / "config.json").symlink_to("../../../blobs/123")
    check_link(unet / "config.json", unet)
    check_link(unet / "config.json", unet.parent)
    (unet / "LICENSE").symlink_to(secret)
    with pytest.raises(CheckpointError, match="link out of its folder"):
        check_link(unet / "LICENSE", unet.parent)


def test_numbers_are_bounded_before_a_network_is_built() -> None:
    for config in (
        {"layers_per_block": 10**7},
        {"block_out_channels": [2**40]},
        {"block_out_channels": [32] * 1000},
        {"num_class_embeds": 10**12},
    ):
        with pytest.raises(CheckpointError, match="expected numbers up to"):
            check_numbers(config)
    for name in ("num_res_blocks", "num_channels", "image_size", "diffusion_steps"):
        with pytest.raises(OptionError, match="expected at most"):
            parse_flags({name: str(10**8), "repository": "guided-diffusion", "channel_mult": "1,2"})


def test_first_bytes_of_a_device_are_none() -> None:
    assert first_bytes(Path("/dev/zero"), 4) == b""
    assert json.dumps(first_bytes(Path(__file__), 3).decode()) == '"\\"\\"\\""'
