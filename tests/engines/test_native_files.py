"""The native engine's files in a plan: read, bounded, and refused in one sentence when they are not what they say."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pysdk import Plan, Sampler
from pysdk.engines import choice, native
from pysdk.errors import EngineError

Load = Callable[[bytes], native.NativeEngine]


@pytest.fixture
def files(conditional_plan: Path) -> tuple[bytes, Load]:
    """native.json of a plan, and what loads another in its place."""
    with Plan.open(conditional_plan) as plan:
        model, info = plan.manifest.model, next(e for e in plan.manifest.engines if e.kind == "native")
        member, network, constants = (plan.member(name) for name in (info.member, *info.data))
        return bytes(member), lambda data: native.load(model, info, memoryview(data), 1, network, constants)


def test_both_engines_of_a_plan_draw_the_same_images(conditional_plan: Path) -> None:
    images = []
    for kind in ("native", "onnxruntime"):
        with Sampler(conditional_plan, engine=kind, threads=1) as sampler:
            assert sampler.info["running"]["engine"] == kind
            images.append(sampler.sample(5, output="float32"))
    np.testing.assert_allclose(images[0], images[1], rtol=0, atol=1e-4)


def test_why_the_second_engine_is_not_taken(conditional_plan: Path) -> None:
    with Plan.open(conditional_plan) as plan:
        first, second = plan.manifest.engines
        assert choice.choose(plan) == (first, {})
        reason = choice.passed_over(plan, first)[second.kind]
        assert reason == f"comes after {first.kind} in the plan"  # neither was timed
        assert choice.passed_over(plan, second) == {}


def test_another_version(files: tuple[bytes, Load]) -> None:
    data, load = files
    with pytest.raises(EngineError, match="the native program is of version 7, this pysdk runs version 1"):
        load(data.replace(b'"version":1', b'"version":7', 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda head: head["ops"].pop(), "is not valid"),
        (lambda head: head["ops"][3].update(unknown=1), r"is not valid: .*unknown"),
        (lambda head: head["ops"][3].update(out=10**6), "is not valid"),
        (lambda head: head["ops"][3].update(out=2**40), "cannot be read"),
        (lambda head: head["ops"][3].update(out=None), "cannot be read"),
        (lambda head: head["tensors"][0].update(height=9), "is not valid"),
        (lambda head: head["tensors"][0].update(height=0), "cannot be read"),
        (lambda head: head["weights"][0]["parts"][0].update(offset=2**31), "is not valid"),
        (lambda head: head["weights"][0]["parts"][0].update(source="elsewhere"), "cannot be read"),
        (lambda head: head["weights"][0].update(parts=[]), "cannot be read"),
        (lambda head: head.update(more=1), "cannot be read"),
        (lambda head: head.pop("weights"), "cannot be read"),
    ],
)
def test_a_damaged_program(files: tuple[bytes, Load], change: Callable[[dict], object], message: str) -> None:
    data, load = files
    head = json.loads(data)
    change(head)
    with pytest.raises(EngineError, match=rf"the native program {message}.*; build the plan again"):
        load(json.dumps(head).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"[" * 100_000])
def test_what_is_no_program(files: tuple[bytes, Load], data: bytes) -> None:
    with pytest.raises(EngineError, match="the native program cannot be read"):
        files[1](data)


def test_a_program_that_is_too_large(files: tuple[bytes, Load], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "MAX_BYTES", 100)
    with pytest.raises(EngineError, match=r"the native program has [0-9]+ bytes, more than the 100 allowed"):
        files[1](files[0])
