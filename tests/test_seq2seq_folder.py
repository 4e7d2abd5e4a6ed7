"""Folders of the translator: what is in them, what is missing or damaged, and what is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from numattn.models import Seq2Seq
from numattn.models.translator.shortlist import Shortlist
from tiny_marian import (
    SETTINGS,
    file_bytes,
    shortlist_bytes,
    tensors,
    write_folder,
)

MODEL = "tiny.intgemm.alphas.bin"


def test_every_tensor_must_be_there_and_have_its_shape(tmp_path: Path) -> None:
    given = tensors()
    for number, name in enumerate(given):
        without = {key: x for key, x in given.items() if key != name}
        with pytest.raises(ValueError, match=f"has no tensor {name}$"):
            Seq2Seq.from_folder(write_folder(tmp_path / f"without{number}", without))
        rows, columns = given[name].shape
        wider = {**given, name: np.zeros((rows, columns + 1), given[name].dtype)}
        with pytest.raises(ValueError, match=f"tensor {name} in .* has shape .* calls for"):
            Seq2Seq.from_folder(write_folder(tmp_path / f"wider{number}", wider))


def test_a_model_that_is_cut_short(tmp_path: Path) -> None:
    path = write_folder(tmp_path) / MODEL
    data = path.read_bytes()
    sizes = [0, 8, 15, 100, *range(1000, len(data) - 256, 997), len(data) - 1]
    for size in sizes:
        path.write_bytes(data[:size])
        with pytest.raises(ValueError, match="cut short|is no Marian model"):
            Seq2Seq.from_folder(tmp_path)


def test_a_model_with_any_one_byte_of_its_headers_changed(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """It is read, or refused as a ValueError; nothing else happens."""
    path = write_folder(tmp_path) / MODEL
    data = bytearray(path.read_bytes())
    headers = 16 + 32 * struct.unpack_from("<2Q", data)[1]
    outcomes = set()
    for place in rng.integers(0, 2 * headers, 150):
        kept, data[place] = data[place], int(rng.integers(256))
        path.write_bytes(data)
        try:
            Seq2Seq.from_folder(tmp_path)
            outcomes.add("read")
        except ValueError:
            outcomes.add("refused")
        data[place] = kept
    assert "refused" in outcomes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dec-cell": "gru"}, "dec-cell 'gru' is not supported; supported: 'ssru'"),
        ({"transformer-decoder-autoreg": "self-attention"}, "is not supported; supported: 'rnn'"),
        ({"dim-emb": "many"}, "dim-emb must be a positive whole number, not 'many'"),
        ({"enc-depth": "0"}, "enc-depth must be a positive whole number, not '0'"),
        ({"transformer-heads": "3"}, "dim-emb 16 does not divide into 3 heads"),
        ({"enc-depth": "3"}, r"has 2 layers encoder_l…, .* calls for 3 \(enc-depth\)"),
        ({"dim-vocabs": "30"}, "tokenizer.json has 40 words, and the model 30"),
    ],
)
def test_settings_that_are_refused(tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Seq2Seq.from_folder(write_folder(tmp_path, settings=settings))


def test_tensors_of_other_types(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    data = file_bytes(tensors(), SETTINGS)
    changed = data.replace(struct.pack("<Q", 0x4101), struct.pack("<Q", 0x0202))
    (folder / MODEL).write_bytes(changed)
    with pytest.raises(ValueError, match="tensor Wemb in .* has type 0x202, "):
        Seq2Seq.from_folder(folder)


def test_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere"):
        Seq2Seq.from_folder(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no \*.intgemm.alphas.bin in "):
        Seq2Seq.from_folder(tmp_path)
    write_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="tokenizer.json is not a tokenizer"):
        Seq2Seq.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match="no tokenizer.json in "):
        Seq2Seq.from_folder(tmp_path)
    (tmp_path / "another.intgemm.alphas.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="has several files"):
        Seq2Seq.from_folder(tmp_path)


def test_shortlists_that_are_refused(tmp_path: Path) -> None:
    path, lists = tmp_path / "lex.bin", [[1], [2, 2], []]
    good = shortlist_bytes(lists, 2)
    path.write_bytes(good)
    assert Shortlist(path, 3).words_for(np.array([1])).tolist() == [0, 1, 2]
    for data, message in [
        (b"", "is no shortlist: it has 0 bytes"),
        (b"x" + good[1:], "is no shortlist: it begins with"),
        (good[:-1], "is cut short, or longer than it says"),
        (good + b"x", "is cut short, or longer than it says"),
        (shortlist_bytes([[1], [2]], 2), "is for 2 source words, and the vocabulary has 3"),
        (shortlist_bytes([[1], [2], [3]], 2), "is damaged: its lists do not lie in it"),
        (good[:48] + good[56:64] + good[48:56] + good[64:], "is damaged: its lists do not lie"),
    ]:
        path.write_bytes(data)
        with pytest.raises(ValueError, match=message):
            Shortlist(path, 3)
    with pytest.raises(FileNotFoundError, match="no none.bin in "):
        Shortlist(tmp_path / "none.bin", 3)
