"""Folders of vision models with something wrong in them: ValueError or OSError, naming a file."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import tiny_detr
import tiny_vision
from numattn.models import load
from test_damaged_folders import little_room, mutate  # noqa: F401 (a fixture)

MUTATIONS = 60  # of each


@pytest.mark.usefixtures("little_room")
@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("kind", ["vit", "deit-teacher", "dinov2-swiglu", "clip", "siglip", "detr"])
def test_mutations(tmp_path: Path, kind: str) -> None:
    if kind == "detr":
        pytest.importorskip("onnxruntime")
        whole = tiny_detr.write_folder(tmp_path / "whole", "bottleneck")
    else:
        whole = tiny_vision.write_folder(tmp_path / "whole", kind)
    load(whole)
    rng = np.random.default_rng(3)
    refused = 0
    for _ in range(MUTATIONS):
        folder = tmp_path / "changed"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        what = mutate(folder, rng)
        try:
            load(folder)
        except (ValueError, OSError) as error:
            refused += 1
            assert str(folder) in str(error), f"{what}: {error!r} names no file"
        except BaseException as error:
            pytest.fail(f"{what}: {error!r}"[:500])
    assert refused > MUTATIONS / 4  # or else the damage would be none
