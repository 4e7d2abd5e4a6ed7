"""Make decoders_golden.npz: what torch and transformers compute for the tests' tiny decoders.

    pip install torch transformers && PYTHONPATH=tests python tests/data/make_decoders_golden.py

Run it again only if tests/tiny_decoders.py changes; the file is committed, so that the tests need
neither of the two libraries. Logits are computed in float64; beside them stands the error, as a
Euclidean norm, of those that transformers computes in float32.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from tiny_decoders import FAMILIES, VOCABULARY, write_folder


def main() -> None:
    """Compute and write the file beside this script."""
    ids = np.random.default_rng(0).integers(0, VOCABULARY, (1, 52))
    arrays = {"ids": ids}
    for family in FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            write_folder(Path(folder), family)
            logits = []
            for dtype in (torch.float64, torch.float32):
                model = AutoModelForCausalLM.from_pretrained(
                    folder, dtype=dtype, attn_implementation="eager", experts_implementation="eager"
                ).eval()
                with torch.no_grad():
                    logits.append(model(torch.tensor(ids)).logits.double().numpy())
        exact, single = logits
        arrays[f"{family}_logits"] = exact.astype(np.float32)
        arrays[f"{family}_float32_error"] = np.linalg.norm(single - exact)
    np.savez_compressed(Path(__file__).with_name("decoders_golden.npz"), **arrays)


if __name__ == "__main__":
    main()
