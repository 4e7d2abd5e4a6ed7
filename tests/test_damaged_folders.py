"""Folders of every family with something wrong in them: ValueError or OSError, which names a file.

Nothing else is raised, nothing hangs, and nothing is allocated that a file only claims to hold.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_bert
import tiny_decoders
import tiny_encoders
import tiny_marian
import torch_files
from child import run_python
from numattn.models import (
    Bert,
    Gpt,
    Llama,
    QuestionAnswerer,
    Seq2Seq,
    SequenceClassifier,
    TokenClassifier,
)

ROOM = 1 << 30  # bytes that a load of a tiny folder may not come near
MUTATIONS = 120  # of each family


def write_bert(folder: Path) -> Path:
    return tiny_bert.write_folder(
        folder,
        modules=[
            {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        ],
        **{"1_Pooling__config": {"pooling_mode_cls_token": True}},
        sentence_bert_config={"max_seq_length": 12, "do_lower_case": False},
        config_sentence_transformers={"prompts": {"query": "the "}, "default_prompt_name": None},
        tokenizer_config={"model_max_length": 20, "do_lower_case": True},
    )


def write_llama(folder: Path) -> Path:
    scaling = {"rope_scaling": tiny_decoders.LLAMA3_SCALING}
    return tiny_decoders.write_folder(folder, "llama", scaling)


def write_older(folder: Path) -> Path:
    """A folder of before safetensors and tokenizer.json."""
    write_bert(folder)
    (folder / "model.safetensors").unlink()
    (folder / "tokenizer.json").unlink()
    torch_files.write(folder / "pytorch_model.bin", tiny_bert.tensors_of(tiny_bert.CONFIG))
    words = "\n".join([*tiny_bert.VOCABULARY[:-1], "[MASK]"])
    (folder / "vocab.txt").write_text(words, encoding="utf-8")
    return folder


def write_stored(stem: str, task: str) -> Callable[[Path], Path]:
    """Return what writes the folder of a model in data/encoders_golden.npz."""

    def write(folder: Path) -> Path:
        with np.load(Path(__file__).parent / "data" / "encoders_golden.npz") as file:
            parts = json.loads(str(file[f"{stem}/0/{task}/folder"]))
        return tiny_encoders.write_folder(folder, **parts)

    return write


WRITERS: dict[str, Callable[[Path], Path]] = {
    "bert": write_bert,
    "older": write_older,
    "modernbert": write_stored("ModernBert", "ForSequenceClassification"),
    "albert": write_stored("Albert", "ForQuestionAnswering"),
    "nomic": write_stored("NomicBert", "ForTokenClassification"),
    "gpt": lambda folder: tiny_decoders.write_folder(folder, "gpt2"),
    "llama": write_llama,
    "gemma": lambda folder: tiny_decoders.write_folder(folder, "gemma2"),
    "marian": lambda folder: tiny_marian.write_folder(folder, lists=[[1, 2]] * 40),
}
LOADERS: dict[str, Any] = {
    "bert": Bert,
    "older": Bert,
    "modernbert": SequenceClassifier,
    "albert": QuestionAnswerer,
    "nomic": TokenClassifier,
    "gpt": Gpt,
    "llama": Llama,
    "gemma": Llama,
    "marian": Seq2Seq,
}

ODD: list[Any] = [
    None, True, False, 0, 1, -1, 2.5, 10**9, 10**400, -(10**400), 1e308, 1e-320, float("nan"),
    float("inf"), "", "many", "\ud800", "a\0b", [], [1], [[]], {}, {"a": 1}, [None], "../..", "/",
]  # fmt: skip


def places_in(value: Any) -> list[tuple[Any, Any]]:
    """Return (container, key) of everything that a JSON value holds."""
    found: list[tuple[Any, Any]] = []
    keys = value.keys() if isinstance(value, dict) else range(len(value))
    for key in list(keys):
        found.append((value, key))
        if isinstance(value[key], (dict, list)):
            found += places_in(value[key])
    return found


def mutate_json(path: Path, rng: np.random.Generator) -> str:
    """Change one setting of a JSON file, or remove it, and return what was done."""
    content = json.loads(path.read_text(encoding="utf-8"))
    places = places_in(content)
    container, key = places[rng.integers(len(places))]
    if rng.random() < 0.15:
        del container[key]
        what = f"without {key!r}"
    else:
        container[key] = ODD[rng.integers(len(ODD))]
        what = f"{key!r} = {str(container[key])[:40]!r}"
    path.write_text(json.dumps(content), encoding="utf-8")
    return what


def mutate_bytes(path: Path, rng: np.random.Generator) -> str:
    """Cut a file, or change some of its bytes, most of them near its beginning."""
    data = bytearray(path.read_bytes())
    if rng.random() < 0.3:
        size = int(rng.integers(len(data)))
        path.write_bytes(data[:size])
        return f"cut to {size}"
    places = (len(data) * rng.random(int(rng.integers(1, 6))) ** 6).astype(int).tolist()
    for place in places:
        data[place] = int(rng.integers(256))
    path.write_bytes(data)
    return f"bytes at {places}"


def mutate(folder: Path, rng: np.random.Generator) -> str:
    """Damage one file of a folder and return what was done."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = files[rng.integers(len(files))]
    as_json = path.suffix == ".json" and rng.random() < 0.85
    return f"{path.name}: {(mutate_json if as_json else mutate_bytes)(path, rng)}"


@pytest.fixture
def little_room() -> Any:
    """Let the process have no more than ROOM beside what it has."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.usefixtures("little_room")
@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("family", [*WRITERS])
def test_mutations(tmp_path: Path, family: str) -> None:
    whole = WRITERS[family](tmp_path / "whole")
    LOADERS[family].from_folder(whole)
    rng = np.random.default_rng(len(family))
    refused = 0
    for _ in range(MUTATIONS):
        folder = tmp_path / "changed"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        what = mutate(folder, rng)
        try:
            LOADERS[family].from_folder(folder)
        except (ValueError, OSError) as error:
            refused += 1
            assert str(folder) in str(error), f"{what}: {error!r} names no file"
        except BaseException as error:
            pytest.fail(f"{what}: {error!r}"[:500])
    assert refused > MUTATIONS / 4  # or else the damage would be none


@pytest.mark.parametrize("family", ["bert", "gpt", "llama"])
def test_json_that_is_nested_too_deeply(tmp_path: Path, family: str) -> None:
    folder = WRITERS[family](tmp_path)
    (folder / "config.json").write_text("[" * 200_000)
    with pytest.raises(ValueError, match="config.json .*nested too deeply"):
        LOADERS[family].from_folder(folder)


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("bert", "config.json"),
        ("bert", "model.safetensors"),
        ("bert", "tokenizer.json"),
        ("bert", "modules.json"),
        ("bert", "tokenizer_config.json"),
        ("older", "pytorch_model.bin"),
        ("older", "vocab.txt"),
        ("llama", "config.json"),
        ("gpt", "model.safetensors"),
        ("marian", "tiny.intgemm.alphas.bin"),
        ("marian", "lex.tiny.bin"),
        ("marian", "tokenizer.json"),
    ],
)
def test_a_pipe_in_the_place_of_a_file(tmp_path: Path, family: str, name: str) -> None:
    """It would never end; so this runs in a process that can be ended."""
    folder = WRITERS[family](tmp_path)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    script = f"""
        import sys
        from numattn.models import {LOADERS[family].__name__} as Model
        try:
            Model.from_folder(sys.argv[1])
        except ValueError as error:
            print(error)
    """
    process = run_python(script, str(folder), timeout=60)
    assert f"{name} is no regular file" in process.stdout, process.stderr


def test_links_are_followed(tmp_path: Path) -> None:
    """As in the cache of the Hugging Face hub."""
    stored = write_bert(tmp_path / "stored")
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in stored.iterdir():
        (linked / path.name).symlink_to(path)
    texts = ["the cat", "dog"]
    np.testing.assert_array_equal(
        Bert.from_folder(linked).encode(texts), Bert.from_folder(stored).encode(texts)
    )
