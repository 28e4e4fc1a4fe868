"""The name that pip knows this package by: `pysdk` on the index is somebody else's package."""

import re
import subprocess
from importlib.metadata import metadata, version
from pathlib import Path

import pytest
from click.testing import CliRunner
from kit.places import ROOT

from pysdk.cli.commands import pysdk
from pysdk.distribution import DISTRIBUTION, install_extra, installed_version

INSTALL = re.compile(r"\bpip3? (?:\\\n|[^\S\n])*(?:install|download)\b([^\n#`;]*)")
"""A command that fetches packages, and its arguments up to the end of the command or line."""
EXTRA = re.compile(r"(?<![\w./-])pysdk(?:-\w+)*\\?\[\w")

METADATA = re.compile(
    r"(?:(?:version|distribution|metadata|requires|files|from_name|entry_points|get_distribution)\(\s*|"
    r"\b(?:package|dist|distribution|distribution_name|package_name)\s*=\s*)['\"]pysdk['\"]"
)
"""Whoever asks for the metadata of a package."""
UNNAMED = re.compile(r"version_option\((?![^)]*\b(?:package_name|version)\s*=)[^)]*\)")
"""click's option takes the name of the module for that of the package."""


def texts() -> dict[str, str]:
    """The text files of the checkout, by their path in it."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    found = {}
    for name in listed.split("\0"):
        path = ROOT / name
        if path.is_file() and path != Path(__file__) and b"\0" not in (content := path.read_bytes()):
            found[name] = content.decode()
    return found


def foreign(text: str) -> list[str]:
    """The parts of a text that name the package of others."""
    commands = [arguments for arguments in INSTALL.findall(text) if re.search(r"[\s'\"]pysdk(?![\w./-])", arguments)]
    extras = [found for found in EXTRA.findall(text) if not found.startswith(DISTRIBUTION)]
    return commands + extras + METADATA.findall(text) + UNNAMED.findall(text)


@pytest.mark.parametrize(
    "text",
    [
        "pip install pysdk",
        "pip install -U 'pysdk[train]'",
        "get pysdk[export]",
        r"pysdk\[train\]",
        'version("pysdk")',
        "metadata( 'pysdk' )",
        'Distribution.from_name("pysdk")',
        '@click.version_option(package_name="pysdk")',
        "version_option(\n    package_name = 'pysdk',\n)",
        "@click.version_option()",
        '@click.version_option(prog_name="pysdk")',
    ],
)
def test_the_wrong_name_would_be_found(text: str) -> None:
    assert foreign(text)


@pytest.mark.parametrize(
    "text",
    [
        f"pip install '{DISTRIBUTION}[train]'",
        "version(DISTRIBUTION)",
        "@click.version_option(package_name=DISTRIBUTION)",
        '@click.version_option(version="1")',
        'prog_name="pysdk"',
    ],
)
def test_the_right_name_is_not(text: str) -> None:
    assert foreign(text) == []


def test_the_wrong_name_is_nowhere() -> None:
    assert {name: found for name, text in texts().items() if (found := foreign(text))} == {}


def declared() -> tuple[str, dict[str, str]]:
    """Name and extras of pyproject.toml, each extra as it is written there."""
    text = (ROOT / "pyproject.toml").read_text()
    name = re.search(r'(?m)^name = "([^"]+)"', text)
    section = text.split("[project.optional-dependencies]\n")[1].split("\n[")[0]
    assert name is not None
    return name[1], dict(re.findall(r"(?ms)^(\w+) = \[(.*?)\]$", section))


def test_one_name_everywhere() -> None:
    name, _ = declared()
    assert name == DISTRIBUTION == metadata(DISTRIBUTION)["Name"]
    assert installed_version() == version(name)
    assert install_extra("train") == f"pip install '{name}[train]'"


def test_extras_that_are_named_exist() -> None:
    _, extras = declared()
    assert {"train", "export", "test"} <= set(extras)
    for path, text in texts().items():
        lists = re.findall(rf"{DISTRIBUTION}\\?\[([\w,]+)|install_extra\(\"(\w+)\"\)|[ ']\.\[([\w,]+)\]'", text)
        named = {extra for found in lists for part in found for extra in part.split(",") if extra}
        assert named <= set(extras), path


def test_the_command_tells_the_version_of_the_distribution() -> None:
    result = CliRunner().invoke(pysdk, ["--version"])
    assert result.exit_code == 0
    assert result.output.endswith(f", version {installed_version()}\n")
