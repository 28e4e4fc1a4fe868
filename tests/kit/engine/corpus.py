"""Valid programs that between them use every op, field and way of computing: for tests that hold for all programs.

What is returned is always the same, except the random networks, which differ from seed to seed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kit.engine.programs import Array, Program

BATCH = 5


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def convolution(
    tactic: str,
    channels: int = 17,
    out: int = 20,
    kernel: tuple[int, int] = (3, 3),
    size: tuple[int, int] = (7, 9),
    **fields: int,
) -> Program:
    program = Program(normal(0, BATCH, channels, *size))
    weight = normal(1, out, channels, *kernel)
    pads = [1, 2, 3, 1] if kernel != (1, 1) else [0] * 4
    x = program.conv([program.image()], weight, pads, tactic=tactic, bias=normal(2, out), **fields)
    return to_image(program, x)


def to_image(program: Program, x: int) -> Program:
    """The first pixels of a map of any size, brought to the image's size."""
    height, width = program.x.shape[2:]
    channels, rows, columns, _ = program.tensors[x]
    ones = np.zeros((channels, channels, max(1, rows - height + 1), max(1, columns - width + 1)), np.float32)
    ones[range(channels), range(channels), 0, 0] = 1
    return program.output(program.conv([x], ones, [0, 0, max(0, height - rows), max(0, width - columns)]))


def winograd_with_everything(tactic: str, shared: bool, upsample: int = 1) -> Program:
    program = Program(normal(0, BATCH, 20, 6, 7))
    image = program.image()
    vector = program.shared_vector(normal(3, 25)) if shared else program.vectors(normal(3, BATCH, 25))
    weight = normal(1, 20, 20, 3, 3)
    x = program.conv([image], weight, [1] * 4, tactic=tactic, embedding=[vector, 5], residual=image)
    if upsample == 2:
        x = program.conv([x], weight, [1] * 4, tactic=tactic, upsample=2)
    return to_image(program, x)


def two_maps(op: str) -> Program:
    """The second begins inside a block of 16 channels."""
    program = Program(normal(0, BATCH, 21, 5, 6))
    image = program.image()
    other = program.conv([image], normal(1, 11, 21, 1, 1))
    if op == "conv":
        y = program.conv([image, other], normal(2, 9, 32, 1, 1), tactic="direct")
    elif op == "concat":
        y = program.op("concat", x=[image, other, image], out=program.tensor(53, 5, 6))
    else:
        scale = program.vectors(normal(3, BATCH, 70))
        modulation = {"scale": [scale, 1], "shift": [scale, 34]}
        y = program.norm([image, other], 4, normal(4, 32), normal(5, 32), silu=True, **modulation)
    return program.output(y)


def group_norm(channels: int, groups: int, pixels: tuple[int, int], shared: bool) -> Program:
    program = Program(normal(0, BATCH, channels, *pixels) * 3 + 5)
    fields = {}
    if shared:
        vector = program.shared_vector(normal(1, 2 * channels))
        fields = {"scale": [vector, 0], "shift": [vector, channels]}
    image = program.image()
    return program.output(program.norm([image], groups, normal(2, channels), normal(3, channels), **fields))


def attention(heads: int, head: int, size: tuple[int, int], legacy: bool) -> Program:
    program = Program(normal(0, BATCH, 3 * heads * head, *size))
    image = program.image()
    places = [[image, i * head, 3 * head] if legacy else [image, i * heads * head, head] for i in range(3)]
    fields = dict(zip("qkv", places, strict=True)) | {"heads": heads, "head_channels": head, "scale": head**-0.5}
    if legacy:
        fields["residual"] = program.conv([image], normal(1, heads * head, 3 * heads * head, 1, 1))
    return program.output(program.op("attention", out=program.tensor(heads * head, *size), **fields))


def elementwise() -> Program:
    program = Program(normal(0, BATCH, 18, 6, 5))
    image = program.image()
    small = program.op("pool", x=image, out=program.tensor(18, 3, 2))
    large = program.op("upsample", x=small, out=program.tensor(18, 6, 4))
    wide = program.conv([large], np.eye(18, dtype=np.float32)[:, :, None, None], [0, 0, 0, 1])
    x = program.op("add", a=image, b=wide, out=program.like(image))
    x = program.op("scale", x=x, out=program.like(image), factor=0.7)
    x = program.op("add", a=x, b=program.vectors(normal(1, BATCH, 18)), out=program.like(image))
    return program.output(program.op("silu", x=x, out=program.like(image)))


def time_and_label() -> Program:
    program = Program(normal(0, BATCH, 19, 4, 4), t=417.0)
    time = program.linear(program.timestep(32), normal(1, 40, 32), normal(2, 40))
    time = program.op("silu", x=time, out=program.like(time))
    label = program.vectors(normal(3, BATCH, 40))
    both = program.op("add", a=time, b=label, out=program.like(label))
    both = program.op("scale", x=both, out=program.like(both), factor=-0.5)
    vector = program.linear(both, normal(4, 19, 40))
    image = program.image()
    return program.output(program.op("add", a=image, b=vector, out=program.like(image)))


def unet(seed: int, batch: int = BATCH) -> Program:
    """Two levels of residual blocks, up and down, with skips, attention, time and label: sizes drawn at random."""
    rng = np.random.default_rng(seed)

    def weights(*shape: int) -> Array:
        return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    def pick(*options: str) -> str:
        return str(rng.choice(options))

    channels, height, width = int(rng.integers(1, 5)), 2 * int(rng.integers(1, 7)), 2 * int(rng.integers(1, 7))
    program = Program(rng.standard_normal((batch, channels, height, width), np.float32), t=float(rng.integers(1000)))
    hidden = [int(n) for n in rng.integers(5, 40, 2)]
    embedding = int(rng.integers(8, 40))
    time = program.linear(program.timestep(16), weights(embedding, 16), weights(embedding))
    vector = program.op("silu", x=time, out=program.like(time))
    if rng.integers(2):
        label = program.vectors(rng.standard_normal((batch, embedding), np.float32))
        vector = program.op("add", a=vector, b=label, out=program.like(label))

    def norm(x: list[int], silu: bool, **fields: list[int]) -> int:
        count = sum(program.tensors[i][0] for i in x)
        groups = int(rng.choice([g for g in range(1, count + 1) if count % g == 0]))
        return program.norm(x, groups, 1 + weights(count), weights(count), silu=silu, **fields)

    def tactic() -> str:
        return pick("direct", "winograd2", "winograd4")

    def block(x: list[int], out: int) -> int:
        count = sum(program.tensors[i][0] for i in x)
        time = program.linear(vector, weights(2 * out, embedding), weights(2 * out))
        if rng.integers(2):
            h = program.conv([norm(x, True)], weights(out, count, 3, 3), [1] * 4, tactic=tactic(), embedding=[time, 0])
            h = norm([h], True)
        else:
            h = program.conv([norm(x, True)], weights(out, count, 3, 3), [1] * 4, tactic=tactic(), bias=weights(out))
            h = norm([h], True, scale=[time, 0], shift=[time, out])
        skip = x[0] if len(x) == 1 and count == out else program.conv(x, weights(out, count, 1, 1), bias=weights(out))
        return program.conv([h], weights(out, out, 3, 3), [1] * 4, tactic=tactic(), residual=skip)

    def attend(x: int) -> int:
        count, rows, columns, _ = program.tensors[x]
        heads = int(rng.choice([h for h in range(1, count + 1) if count % h == 0]))
        head = count // heads
        qkv = program.conv([norm([x], False)], weights(3 * count, count, 1, 1), bias=weights(3 * count))
        places = [[qkv, i * head, 3 * head] if rng.integers(2) else [qkv, i * count, head] for i in range(3)]
        fields = dict(zip("qkv", places, strict=True)) | {"heads": heads, "head_channels": head, "scale": head**-0.5}
        y = program.op("attention", out=program.tensor(count, rows, columns), **fields)
        return program.conv([y], weights(count, count, 1, 1), bias=weights(count), residual=x)

    x = skip = program.conv([program.image()], weights(hidden[0], channels, 3, 3), [1] * 4, tactic=tactic())
    x = block([x], hidden[0])
    if rng.integers(2):
        x = program.conv([x], weights(hidden[0], hidden[0], 3, 3), [0, 0, 1, 1], stride=2)
    else:
        x = program.op("pool", x=x, out=program.tensor(hidden[0], height // 2, width // 2))
    x = attend(block([x], hidden[1]))
    x = program.conv([x], weights(hidden[1], hidden[1], 3, 3), [1] * 4, upsample=2, tactic=tactic())
    x = block([x, skip], hidden[0])
    y = program.conv([norm([x], True)], weights(channels, hidden[0], 3, 3), [1] * 4, tactic=tactic())
    return program.output(y)


def every_op() -> Program:
    """A program with every op and every field."""
    program = Program(normal(0, BATCH, 3, 4, 4))
    image = program.image()
    vector = program.shared_vector(normal(1, 12))
    label = program.vectors(normal(2, BATCH, 12))
    vector = program.op("silu", x=vector, out=program.like(vector))
    vector = program.op("scale", x=vector, out=program.like(vector), factor=2.0)
    vector = program.op("add", a=label, b=vector, out=program.like(label))
    weight = normal(3, 3, 3, 3, 3)
    x = program.conv([image], weight, [1] * 4, bias=normal(4, 3), embedding=[vector, 2], residual=image)
    small = program.op("pool", x=x, out=program.tensor(3, 2, 2))
    x = program.op("upsample", x=small, out=program.tensor(3, 4, 4))
    x = program.norm([x], 3, normal(5, 3), normal(6, 3), scale=[vector, 0], shift=[vector, 5])
    joined = program.op("concat", x=[x, image, x], out=program.tensor(9, 4, 4))
    heads = {name: [joined, 3 * i, 1] for i, name in enumerate("qkv")}
    fields = heads | {"heads": 3, "head_channels": 1, "scale": 1.0, "residual": x}
    x = program.op("attention", out=program.tensor(3, 4, 4), **fields)
    return program.output(x)


CORPUS: dict[str, Callable[[], Program]] = {
    "direct": lambda: convolution("direct"),
    "direct, 3 channels": lambda: convolution("direct", 3, 5),
    "direct, 1 channel": lambda: convolution("direct", 1, 1),
    "direct, 5x2": lambda: convolution("direct", 16, 33, (5, 2)),
    "direct, 1x1": lambda: convolution("direct", 33, 129, (1, 1)),
    "direct, 1x1, stride 2": lambda: convolution("direct", 12, 8, (1, 1), stride=2),
    "direct, upsample": lambda: convolution("direct", 5, 16, upsample=2),
    "direct, stride 2": lambda: convolution("direct", 18, 70, stride=2),
    "winograd2": lambda: convolution("winograd2"),
    "winograd4": lambda: convolution("winograd4", 16, 65),
    "winograd2, many tiles": lambda: convolution("winograd2", 5, 20, size=(14, 13)),
    "winograd4, many tiles": lambda: convolution("winograd4", 5, 20, size=(28, 23)),
    "winograd2, all fields": lambda: winograd_with_everything("winograd2", True, 2),
    "winograd4, all fields": lambda: winograd_with_everything("winograd4", False, 2),
    "direct, all fields": lambda: winograd_with_everything("direct", False),
    "conv of two": lambda: two_maps("conv"),
    "concat": lambda: two_maps("concat"),
    "group_norm of two": lambda: two_maps("group_norm"),
    "group_norm": lambda: group_norm(24, 6, (17, 31), True),
    "group_norm, one pixel": lambda: group_norm(9, 3, (1, 1), False),
    "attention": lambda: attention(3, 7, (5, 6), True),
    "attention, 16 per head": lambda: attention(2, 16, (4, 4), False),
    "elementwise": elementwise,
    "time and label": time_and_label,
    "every op": every_op,
    "U-Net": lambda: unet(1),
}
