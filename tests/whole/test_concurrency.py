"""Several samplers and threads at once, and being interrupted."""

import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit.tiny_networks import write_toy_plan

from pysdk import Sampler

REQUESTS: list[dict[str, Any]] = [
    {"n": 5, "seed": 1, "steps": 7},
    {"n": 3, "seed": 2, "steps": 5, "solver": "ddpm"},
    {"n": 6, "seed": 3, "steps": 4, "guidance_scale": 2.0},
    {"n": 1, "seed": 4, "steps": 9, "labels": 2},
]


@pytest.mark.parametrize("several", [False, True], ids=["one sampler", "a sampler each"])
def test_threads_draw_what_they_would_alone(conditional_plan: Path, several: bool) -> None:
    plan = conditional_plan
    samplers = [Sampler(plan, threads=1 + i % 2) for i in range(len(REQUESTS) if several else 1)] * len(REQUESTS)
    expected = [samplers[0].sample(**request) for request in REQUESTS]
    barrier = threading.Barrier(len(REQUESTS))

    def work(index: int) -> list[np.ndarray]:
        barrier.wait()
        return [samplers[index].sample(**REQUESTS[(index + turn) % len(REQUESTS)]) for turn in range(3)]

    with ThreadPoolExecutor(len(REQUESTS)) as pool:
        for index, found in enumerate(pool.map(work, range(len(REQUESTS)))):
            for turn, images in enumerate(found):
                np.testing.assert_array_equal(images, expected[(index + turn) % len(REQUESTS)])


def test_streams_in_several_threads(conditional: Sampler) -> None:
    def last(seed: int) -> np.ndarray:
        *_, preview = conditional.stream(3, seed=seed, steps=6)
        return np.asarray(preview.x)

    with ThreadPoolExecutor(3) as pool:
        for seed, images in enumerate(pool.map(last, range(3))):
            np.testing.assert_array_equal(images, conditional.sample(3, seed=seed, steps=6))


def test_closing_while_another_thread_draws(tmp_path: Path) -> None:
    """That thread ends what it began; nothing is left to be used afterwards."""
    sampler = Sampler(write_toy_plan(tmp_path / "toy.plan"), threads=1)
    expected = sampler.sample(4)
    drawing, closed = threading.Event(), threading.Event()

    def progress(done: int, total: int) -> None:
        drawing.set()
        closed.wait(10)

    with ThreadPoolExecutor(1) as pool:
        images = pool.submit(sampler.sample, 4, progress=progress)
        assert drawing.wait(10)
        sampler.close()
        closed.set()
        np.testing.assert_array_equal(images.result(), expected)
    assert sampler._executor._idle == []
    with pytest.raises(RuntimeError, match="this sampler is closed"):
        sampler.sample(4)


class Failing:
    """Stands in for an engine: its third call does something else first."""

    description = "failing"

    def __init__(self, engine: Any, deed: Any) -> None:
        self.engine, self.deed, self.calls = engine, deed, 0

    def bind(self, buffers: Any) -> Any:
        network = self.engine.bind(buffers)

        def call() -> None:
            self.calls += 1
            if self.calls == 3:
                self.deed()
            network()

        return call


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def run_out_of_memory() -> None:
    raise MemoryError


@pytest.mark.parametrize(("deed", "error"), [(interrupt, KeyboardInterrupt), (run_out_of_memory, MemoryError)])
def test_stopped_within_a_step_and_still_usable(tmp_path: Path, deed: Any, error: type[BaseException]) -> None:
    with Sampler(write_toy_plan(tmp_path / "toy.plan"), threads=1) as sampler:
        expected = sampler.sample(3)
        sampler._executor._idle.clear()
        engine = sampler._executor.engine
        sampler._executor.engine = failing = Failing(engine, deed)
        with pytest.raises(error):
            sampler.sample(3)
        assert failing.calls == 3
        assert sampler._executor._idle == []  # the chain is not used again
        sampler._executor.engine = engine
        np.testing.assert_array_equal(sampler.sample(3), expected)


@pytest.mark.parametrize("place", ["progress", "noise"])
def test_errors_of_the_callers_own_functions_come_out_as_they_are(tmp_path: Path, place: str) -> None:
    """A RuntimeError in a callback is not the engine's."""

    def fails(*_: Any) -> Any:
        raise RuntimeError("mine")

    def fails_later(draw: int, images: np.ndarray) -> np.ndarray:
        return fails() if draw else np.zeros((len(images), 1, 2, 2), np.float32)

    with Sampler(write_toy_plan(tmp_path / "toy.plan"), threads=1) as sampler:
        expected = sampler.sample(3)
        callback: Any = fails_later if place == "noise" else fails
        with pytest.raises(RuntimeError, match=r"^mine$") as caught:
            sampler.sample(3, **{place: callback})
        assert type(caught.value) is RuntimeError
        np.testing.assert_array_equal(sampler.sample(3), expected)


INTERRUPTED = """
import sys
import numpy as np
from pysdk import Sampler, StepTable
sampler = Sampler(sys.argv[1], threads=1)
expected = sampler.sample(3)
endless = StepTable.from_columns(t=np.zeros(500_000), b=1.0, q=0.5)
try:
    print("ready", flush=True)
    sampler.sample(3, solver=endless)
except KeyboardInterrupt:
    assert np.array_equal(sampler.sample(3), expected)
    print("usable", flush=True)
"""


def test_ctrl_c_from_outside(tmp_path: Path) -> None:
    command = [sys.executable, "-c", INTERRUPTED, write_toy_plan(tmp_path / "toy.plan")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGINT)
        assert child.stdout.readline() == "usable\n"
        assert child.wait(30) == 0
