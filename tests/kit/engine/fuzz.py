"""Programs changed at random, as an attacker would change a plan: each is refused with a ValueError or runs in bounds.

    PYTHONPATH=tests python -m kit.engine.fuzz --seconds 600 [--seed 0]

A mutant that is accepted runs on a small batch whose arrays lie between canaries. Under an address sanitizer, as
tools/sanitize.sh runs the tests, the engine's own pieces of memory have guards between them as well.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections import Counter
from typing import Any

import numpy as np

from kit.engine.corpus import CORPUS, unet
from kit.engine.programs import Array, Program
from pysdk import _native

NUMBERS = (0, 1, 2, 3, 15, 16, 17, 31, 32, 255, 2**14, 2**16, 2**20, 2**31 - 1, 2**31, 2**62, 2**63 - 1, 2**63, -1, -16)
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e-30, 1e30, 1e300, float("inf"), float("nan"))
TEXTS = ("direct", "winograd2", "winograd4", "conv", "input", "", "\ud800")
CANARY = 64
MAX_WORK = 1 << 24
"""Floats of an accepted mutant's tensors: larger ones are correct but slow to run."""


class Mutator:
    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def one(self, options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def number(self, old: int) -> int:
        action = self.rng.integers(3)
        if action == 0:
            return int(self.one(NUMBERS))
        if action == 1:
            return old + int(self.rng.integers(-3, 4))
        return int(self.rng.integers(0, 2 * min(abs(old), 2**30) + 2))

    def value(self, old: Any) -> Any:
        """Usually of the same type."""
        if self.rng.integers(12) == 0:
            return self.one((None, True, False, 1, 1.5, "direct", [], [0], [0, 0, 0], {}, b"", [None]))
        if isinstance(old, bool):
            return not old
        if isinstance(old, int):
            return self.number(old)
        if isinstance(old, float):
            return float(self.one(FLOATS)) if self.rng.integers(2) else float(old * self.rng.normal())
        if isinstance(old, str):
            return self.one(TEXTS)
        new = list(old)
        action = self.rng.integers(6)
        if action == 0 and new:
            del new[int(self.rng.integers(len(new)))]
        elif action == 1:
            new.insert(int(self.rng.integers(len(new) + 1)), self.number(1))
        elif new:
            place = int(self.rng.integers(len(new)))
            new[place] = self.value(new[place])
        return type(old)(new) if isinstance(old, tuple) else new

    def tensor(self, program: Program) -> None:
        place = int(self.rng.integers(len(program.tensors)))
        action = self.rng.integers(4)
        if action == 0:
            program.tensors[place] = self.one(program.tensors)
        elif action == 1:
            program.tensors.append(self.one(program.tensors))
        else:
            program.tensors[place] = self.value(program.tensors[place])

    def weight(self, program: Program) -> None:
        place = int(self.rng.integers(len(program.weights)))
        shape, parts = program.weights[place]
        action = self.rng.integers(5)
        if action == 0:
            program.weights[place] = self.one(program.weights)
        elif action == 1:
            shape = self.value(tuple(shape))
        elif action == 2 and parts:
            part = int(self.rng.integers(len(parts)))
            parts = [*parts[:part], self.value(parts[part]), *parts[part + 1 :]]
        elif action == 3:
            parts = self.value(list(parts))
        else:
            program.source = program.source[: int(self.rng.integers(len(program.source) + 1))]
        if action in {1, 2, 3}:
            program.weights[place] = (shape, parts)

    def op(self, program: Program) -> None:
        place = int(self.rng.integers(len(program.ops)))
        fields = program.ops[place]
        name = self.one(list(fields))
        action = self.rng.integers(12)
        if action == 0:
            del fields[name]
        elif action == 1:
            fields[self.one(list(self.one(program.ops)))] = self.value(fields[name])
        elif action == 2:
            program.ops.pop(place)
        elif action == 3:
            program.ops.insert(place, copy.deepcopy(self.one(program.ops)))
        elif action == 4:
            program.ops.insert(int(self.rng.integers(len(program.ops))), program.ops.pop(place))
        elif action == 5:
            donor = self.one(program.ops)
            name = self.one([key for key in fields if key in donor])
            fields[name] = copy.deepcopy(donor[name])
        else:
            fields[name] = self.value(fields[name])

    def consistent(self, program: Program) -> None:
        """Changes that tend to stay valid: the accepted mutants reach the kernels."""
        action = self.rng.integers(5)
        fields = self.one(program.ops)
        if action == 0 and fields["op"] == "conv":
            fields["tactic"] = self.one(("direct", "winograd2", "winograd4"))
        elif action == 1 and fields["op"] == "conv":
            top, left, bottom, right = fields["pads"]
            fields["pads"] = self.one(([bottom, right, top, left], [top, right, bottom, left]))
        elif action == 2 and fields["op"] == "attention":
            for letter in "qkv":
                fields[letter] = [fields[letter][0], int(self.rng.integers(0, 60)), int(self.rng.integers(0, 40))]
        elif action == 3 and fields["op"] == "group_norm":
            fields["groups"] = int(self.rng.integers(1, 40))
        else:  # tensors of one shape are exchanged
            a, b = self.rng.integers(len(program.tensors), size=2)
            if program.tensors[a] == program.tensors[b]:
                for op in program.ops[int(self.rng.integers(len(program.ops))) :]:
                    for key in ("x", "a", "b", "residual"):
                        if op.get(key) in {a, b}:
                            op[key] = int(b if op[key] == a else a)

    def resized(self, program: Program) -> None:
        """The size of the image and of all maps of its size."""
        old = program.x.shape[2:]
        new = tuple(int(n) for n in self.rng.integers(1, 20, 2))
        batch = int(self.rng.integers(1, 4))
        program.x = self.rng.standard_normal((batch, program.x.shape[1], *new), np.float32)
        program.tensors = [(c, *new, s) if (h, w) == old else (c, h, w, s) for c, h, w, s in program.tensors]

    def mutant(self, program: Program) -> Program:
        new = copy.deepcopy(program)
        new.x = new.x[: int(self.rng.integers(1, 4))]
        if self.rng.integers(4) == 0:
            self.resized(new)
        for _ in range(int(self.rng.geometric(0.6))):
            try:
                self.one((self.tensor, self.weight, self.op, self.op, self.consistent, self.consistent))(new)
            except (TypeError, ValueError, LookupError, AttributeError):
                break  # an earlier change took away what this one needs
        return new


def between_canaries(shape: tuple[int, ...], dtype: type, value: Array | float) -> tuple[Array, Array]:
    """An array, and all the memory around it."""
    size = int(np.prod(shape))
    memory = np.full(size + 2 * CANARY, 77, dtype)
    array = memory[CANARY : CANARY + size].reshape(shape)
    array[...] = value
    return array, memory


def run(program: Program, native: _native.Program, threads: int) -> str:
    """Run an accepted program twice; what became of it."""
    batch, _, height, width = program.x.shape
    made = [
        between_canaries(program.x.shape, np.float32, program.x),
        between_canaries((1,), np.float32, program.t),
        between_canaries((batch,), np.int64, np.arange(batch)),
        between_canaries((batch, program.out_channels, height, width), np.float32, 7e7),
    ]
    names = ("network_input", "network_time", "network_labels", "network_output")
    arrays = {name: array for name, (array, _) in zip(names, made, strict=True)}
    network = _native.Network(native, threads=threads, **arrays)
    results = []
    try:
        for _ in range(2):
            network()
            results.append(arrays["network_output"].copy())
    except IndexError:  # a table with fewer rows than there are labels
        return "label refused"
    assert np.array_equal(*results, equal_nan=True), "two runs differ: something was read that was not written"
    assert np.array_equal(arrays["network_input"], program.x), "the input was written to"
    for _, memory in made:
        assert (memory[:CANARY] == 77).all(), "memory before an array was written to"
        assert (memory[-CANARY:] == 77).all(), "memory behind an array was written to"
    return "run"


def attempt(program: Program, threads: int) -> str:
    try:
        native = program.native(threads)
    except ValueError:
        return "refused"
    if sum(c * h * w for c, h, w, _ in program.tensors) * program.batch > MAX_WORK:
        return "too large to run"
    return run(program, native, threads)


def fuzz(seconds: float, seed: int = 0, most: int | None = None) -> Counter[str]:
    """Count what became of the mutants; fails with the seed of one that misbehaves."""
    seeds = [make() for make in CORPUS.values()] + [unet(n, 2) for n in range(3)]
    counts: Counter[str] = Counter()
    stop = time.monotonic() + seconds
    while time.monotonic() < stop and (most is None or counts.total() < most):
        number = seed * 10**9 + counts.total()
        mutator = Mutator(number)
        program = mutator.mutant(mutator.one(seeds))
        try:
            counts[attempt(program, int(mutator.rng.integers(1, 4)))] += 1
        except BaseException:
            print(f"mutant {number}: {program.tensors} {program.weights} {program.ops}", file=sys.stderr)
            raise
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other mutants")
    options = parser.parse_args()
    counts = fuzz(options.seconds, options.seed)
    print(f"{counts.total()} mutants:", ", ".join(f"{n} {what}" for what, n in counts.most_common()))


if __name__ == "__main__":
    main()
