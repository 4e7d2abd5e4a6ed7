"""What a loader says where it finds something else than a folder it can read: the way out."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_bert
import tiny_decoders
from numattn.models import Bert, Gpt, Llama, Seq2Seq

MODELS = [Bert, Gpt, Llama, Seq2Seq]


@pytest.mark.parametrize("model", MODELS)
def test_a_file_instead_of_a_folder(tmp_path: Path, model: Any) -> None:
    for name, what in (
        ("model.gguf", "a GGUF file, which numattn.models.load reads"),
        ("a.bin", "a file"),
    ):
        path = tmp_path / name
        path.write_bytes(b"GGUF")
        with pytest.raises(NotADirectoryError, match=f"{name} is {what}; a model is loaded from"):
            model.from_folder(path)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", ["sentence-transformers/all-MiniLM-L6-v2", "bert-base-uncased"])
def test_a_name_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Any, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    message = f"no folder {name}; nothing is downloaded.*`hf download {name} --local-dir DIR`"
    with pytest.raises(FileNotFoundError, match=message):
        model.from_folder(name)
    (tmp_path / name).mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=f"no .* in {name}"):
        model.from_folder(name)


def test_a_path_that_is_none_is_no_name_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        Bert.from_folder(tmp_path / "nowhere")
    assert str(caught.value) == f"no folder {tmp_path / 'nowhere'}"


@pytest.mark.parametrize("name", ["flax_model.msgpack", "tf_model.h5"])
def test_weights_in_a_form_that_is_not_read(tmp_path: Path, name: str) -> None:
    for folder, model in (
        (tiny_bert.write_folder(tmp_path / "bert"), Bert),
        (tiny_decoders.write_folder(tmp_path / "llama"), Llama),
    ):
        (folder / "model.safetensors").rename(folder / name)
        message = rf"no model.safetensors in {folder}, but {name}, .*save_pretrained"
        with pytest.raises(FileNotFoundError, match=message):
            model.from_folder(folder)


@pytest.mark.parametrize("name", ["tokenizer.model", "sentencepiece.bpe.model", "vocab.json"])
def test_a_tokenizer_in_a_form_that_is_not_read(tmp_path: Path, name: str) -> None:
    """Or not for this family."""
    folder = tiny_bert.write_folder(tmp_path)
    (folder / "tokenizer.json").rename(folder / name)
    message = rf"no tokenizer.json in {folder}, but {name}, .*AutoTokenizer.*save_pretrained"
    with pytest.raises(FileNotFoundError, match=message):
        Bert.from_folder(folder).tokenize(["a text"])


def test_token_ids_need_no_tokenizer(tmp_path: Path) -> None:
    folder = tiny_bert.write_folder(tmp_path)
    plain = Bert.from_folder(folder)
    (folder / "tokenizer.json").unlink()
    model = Bert.from_folder(folder)
    ids = [[1, 2, 3], [4, 5]]
    np.testing.assert_array_equal(model.encode_tokens(ids), plain.encode_tokens(ids))
    np.testing.assert_array_equal(model([[1, 2]]), plain([[1, 2]]))
    assert model.max_tokens == tiny_bert.CONFIG["max_position_embeddings"]
    for use in (model.encode, model.tokenize):
        with pytest.raises(FileNotFoundError, match=r"texts need a tokenizer: no tokenizer\.json"):
            use(["a text"])
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.encode_tokens(ids), plain.encode_tokens(ids))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_git_lfs_pointer(tmp_path: Path, name: str) -> None:
    folder = tiny_bert.write_folder(tmp_path)
    (folder / name).write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 90868376\n"
    )
    with pytest.raises(ValueError, match=f"{name} is a Git LFS pointer, .*`git lfs pull`"):
        Bert.from_folder(folder)
