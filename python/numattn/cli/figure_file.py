"""A figure of matplotlib's as the bytes of a file."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

from .fonts import FIRST

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def file_of(
    figure_of: Callable[[], Figure], suffix: str, families: Sequence[str] = (FIRST,)
) -> bytes:
    """Return the file of a figure, in the format of a suffix that `check_format` lets pass.

    Not as somebody's matplotlibrc asks for: letters made by TeX, for one, would be misread.
    """
    from matplotlib import rc_context, rcdefaults, rcParams

    file = BytesIO()
    with rc_context(), warnings.catch_warnings():
        rcdefaults()
        rcParams["font.family"] = [*families]
        # Whoever chose the families says it once for all signs, and by name.
        warnings.filterwarnings("ignore", "Glyph .* missing from|Matplotlib currently does not")
        figure_of().savefig(file, format=suffix.lower().removeprefix("."))
    return file.getvalue()
