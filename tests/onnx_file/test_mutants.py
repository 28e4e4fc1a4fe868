"""A part of what `make fuzz` does."""

from kit.attacks.mutants import run


def test_what_is_taken_is_what_protobuf_reads() -> None:
    taken = run(20_000, 0)
    assert 200 < taken < 19_000  # neither all nor none: both sides are tried
