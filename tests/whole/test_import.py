"""`import pysdk` and the light commands load nothing heavy."""

import subprocess
import sys
from pathlib import Path

import pytest
from kit.tiny_networks import write_toy_plan

HEAVY = ["torch", "onnx", "onnxruntime", "PIL", "tqdm", "scipy", "matplotlib", "safetensors", "click", "diffusers"]

PROGRAM = """
import sys
{statements}
print(*[name for name in {heavy} if name in sys.modules])
"""


def loaded(statements: str, *arguments: object) -> list[str]:
    """The heavy modules that a fresh process has after some statements."""
    program = PROGRAM.format(statements=statements, heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-1].split()


def test_the_package() -> None:
    assert loaded("import pysdk; pysdk.Sampler; pysdk.errors; pysdk.StepTable") == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        [],
        *(
            [name, "--help"]
            for name in (
                "sample",
                "build",
                "train",
                "info",
                "devices",
                "edit",
                "inpaint",
                "interpolate",
                "add-classifier",
            )
        ),
    ],
)
def test_help_of_the_commands(arguments: list[str]) -> None:
    statements = "from pysdk.cli.commands import main\ntry: main()\nexcept SystemExit: pass"
    assert loaded(statements, *arguments) == ["click"]


def test_what_a_sampler_needs(tmp_path: Path) -> None:
    path = write_toy_plan(tmp_path / "toy.plan")
    assert loaded("from pysdk import Sampler; Sampler(sys.argv[1]).sample(2)", path) == ["onnxruntime"]
    assert loaded("from pysdk import Plan; Plan.open(sys.argv[1]).verify()", path) == []


def test_the_version() -> None:
    from importlib.metadata import version

    import pysdk

    assert pysdk.__version__ == version("pysdk-diffusion")
    with pytest.raises(AttributeError, match="module 'pysdk' has no attribute 'sampel'"):
        pysdk.sampel  # type: ignore[attr-defined]  # noqa: B018


def test_everything_named_is_there() -> None:
    import pysdk

    assert all(hasattr(pysdk, name) for name in pysdk.__all__)
