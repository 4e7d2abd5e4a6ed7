"""The score arguments, as they pass from Python to the core."""

from numattn import _core
from numattn._arguments import Score


def test_fields_are_those_that_the_core_reads() -> None:
    assert Score._fields == _core.score_fields
