"""What a loader says where it finds something else than a folder it can read: the way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5"]
)
def test_weights_in_a_form_that_is_not_read(tmp_path: Path, name: str) -> None:
    for folder, model in (
        (tiny_bert.write_folder(tmp_path / "bert"), Bert),
        (tiny_decoders.write_folder(tmp_path / "llama"), Llama),
    ):
        (folder / "model.safetensors").rename(folder / name)
        message = rf"no model.safetensors in {folder}, but {name}, .*save_pretrained"
        with pytest.raises(FileNotFoundError, match=message):
            model.from_folder(folder)


@pytest.mark.parametrize("name", ["vocab.txt", "sentencepiece.bpe.model", "vocab.json"])
def test_a_tokenizer_in_a_form_that_is_not_read(tmp_path: Path, name: str) -> None:
    folder = tiny_bert.write_folder(tmp_path)
    (folder / "tokenizer.json").rename(folder / name)
    message = rf"no tokenizer.json in {folder}, but {name}, .*AutoTokenizer.*save_pretrained"
    with pytest.raises(FileNotFoundError, match=message):
        Bert.from_folder(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_git_lfs_pointer(tmp_path: Path, name: str) -> None:
    folder = tiny_bert.write_folder(tmp_path)
    (folder / name).write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 90868376\n"
    )
    with pytest.raises(ValueError, match=f"{name} is a Git LFS pointer, .*`git lfs pull`"):
        Bert.from_folder(folder)
