"""Write image_classifiers_golden.npz: what transformers makes of classifiers over CLIP and SigLIP.

    PYTHONPATH=tests python tests/data/make_image_classifiers_golden.py

Needs torch and transformers.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import tiny_vision
from vision_by_transformers import classifier_outputs

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Write the file."""
    arrays = {}
    for kind in tiny_vision.CLASSIFIERS:
        with tempfile.TemporaryDirectory() as folder:
            found = classifier_outputs(kind, tiny_vision.write_classifier(Path(folder), kind))
        arrays |= {f"{kind}/{name}": value for name, value in found.items() if name != "pixels"}
    np.savez_compressed(HERE / "image_classifiers_golden.npz", **arrays)


if __name__ == "__main__":
    main()
