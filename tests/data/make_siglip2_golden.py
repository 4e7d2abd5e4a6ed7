"""Write siglip2_golden.npz: what transformers makes of the SigLIP 2 of tests/tiny_vision.py.

    PYTHONPATH=tests python tests/data/make_siglip2_golden.py

Needs torch and transformers.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from tiny_vision import write_siglip2
from vision_by_transformers import siglip2_outputs

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Write the file."""
    with tempfile.TemporaryDirectory() as folder:
        found = siglip2_outputs(write_siglip2(Path(folder)))
    kept = {name: found[name] for name in ("images", "texts", "logits", "states")}
    np.savez_compressed(HERE / "siglip2_golden.npz", **kept)


if __name__ == "__main__":
    main()
