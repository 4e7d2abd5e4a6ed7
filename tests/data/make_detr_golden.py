"""Write detr_golden.npz: what transformers makes of the models of tests/tiny_detr.py.

    PYTHONPATH=tests python tests/data/make_detr_golden.py

Needs torch and transformers.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import tiny_detr
from detr_by_transformers import outputs_of

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Write the file."""
    arrays = {}
    for kind in ("bottleneck", "basic"):
        with tempfile.TemporaryDirectory() as folder:
            outputs = outputs_of(tiny_detr.write_folder(Path(folder), kind))
        arrays["pixels"] = outputs.pop("pixels")  # the same for both
        arrays |= {f"{kind}/{name}": value for name, value in outputs.items()}
    np.savez_compressed(HERE / "detr_golden.npz", **arrays)


if __name__ == "__main__":
    main()
