"""Make encoders_golden.npz: what torch and transformers compute for the tests' tiny encoders.

    pip install torch transformers && PYTHONPATH=tests python tests/data/make_encoders_golden.py

Weights are made from the names of tensors (tiny_encoders.py), so that names and shapes are stored
alone, beside each config.json.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors import safe_open

from tiny_encoders import CASES, LENGTHS, TASKS, golden_ids, save, theirs, write_folder

ROOT = "model.safetensors"


def main() -> None:
    arrays: dict[str, Any] = {}
    for stem, number in CASES:
        for task in TASKS:
            if hasattr(transformers, f"{stem}{task}") and (task == TASKS[0] or number == 0):
                arrays.update(computed(stem, number, task))
    path = Path(__file__).with_name("encoders_golden.npz")
    np.savez_compressed(path, **arrays)
    print(path, path.stat().st_size, "bytes,", len(arrays), "arrays")


def computed(stem: str, number: int, task: str) -> dict[str, Any]:
    """Return a case's config.json, its tensors' shapes and what transformers makes of its ids."""
    with tempfile.TemporaryDirectory() as place:
        folder = save(theirs(stem, number, task), Path(place) / "made")
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        with safe_open(str(folder / ROOT), "numpy") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}
        folder = write_folder(Path(place) / "named", config, shapes)
        model = getattr(transformers, f"{stem}{task}").from_pretrained(folder).eval()
    ids, types = golden_ids(stem)
    mask = torch.tensor((np.arange(ids.shape[1]) < LENGTHS[:, np.newaxis]).astype(np.int64))
    given = {"input_ids": torch.tensor(ids), "attention_mask": mask}
    if getattr(model.config, "type_vocab_size", 0) > 1:
        given["token_type_ids"] = torch.tensor(types)
    with torch.no_grad():
        result = model(**given, output_hidden_states=True)
    logits = result.get("logits")
    if logits is None:
        logits = torch.stack([result.start_logits, result.end_logits], -1)
    key = f"{stem}/{number}/{task}"
    described = json.dumps({"config": config, "shapes": shapes})
    last = model.base_model(**given).last_hidden_state.detach()
    return {
        f"{key}/folder": described,
        f"{key}/hidden": last.numpy(),
        f"{key}/logits": logits.numpy(),
    }


if __name__ == "__main__":
    main()
