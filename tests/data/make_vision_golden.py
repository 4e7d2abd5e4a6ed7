"""Write vision_golden.npz: what transformers makes of the models of tests/tiny_vision.py.

    PYTHONPATH=tests python tests/data/make_vision_golden.py

Needs torch and transformers.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import tiny_vision
from vision_by_transformers import outputs_of

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Write the file."""
    arrays = {}
    for kind in tiny_vision.CONFIGS:
        with tempfile.TemporaryDirectory() as folder:
            outputs = outputs_of(kind, tiny_vision.write_folder(Path(folder), kind))
        arrays |= {f"{kind}/{name}": value for name, value in outputs.items()}
    np.savez_compressed(HERE / "vision_golden.npz", **arrays)


if __name__ == "__main__":
    main()
