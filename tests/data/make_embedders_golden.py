"""Make embedders_golden.npz: what sentence-transformers computes for the tests' tiny embedders.

    pip install torch sentence-transformers
    PYTHONPATH=tests python tests/data/make_embedders_golden.py

Run it again only if tests/tiny_embedders.py or the families of tests/tiny_decoders.py that it uses
change. Vectors are computed in float64; beside them stands the error, as a Euclidean norm, of those
in float32.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from tiny_embedders import FAMILIES, TEXTS, write_embedder


def main() -> None:
    """Compute and write the file beside this script."""
    arrays = {}
    for family in FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            write_embedder(Path(folder), family)
            model = SentenceTransformer(folder, model_kwargs={"attn_implementation": "eager"})
            single = np.asarray(model.float().encode(TEXTS, batch_size=1))
            exact = np.asarray(model.to(torch.float64).encode(TEXTS, batch_size=1))
        arrays[family] = exact.astype(np.float32)
        arrays[f"{family}_float32_error"] = np.linalg.norm(single - exact)
    np.savez_compressed(Path(__file__).with_name("embedders_golden.npz"), **arrays)


if __name__ == "__main__":
    main()
