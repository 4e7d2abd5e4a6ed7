"""A model's folder, and the regular files in it; where one is missing, how to come by it."""

from __future__ import annotations

import re
from pathlib import Path

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
LFS_POINTER = b"version https://git-lfs.github.com/spec/"

# A file that is read → files that stand in its place in some folders, and the way from those to it.
REMEDIES = {
    "model.safetensors": (
        ("tf_model.h5", "flax_model.msgpack"),
        "which is not read; transformers writes model.safetensors: "
        "AutoModel.from_pretrained(folder).save_pretrained(new_folder)",
    ),
    "tokenizer.json": (
        ("vocab.txt", "sentencepiece.bpe.model", "spiece.model", "tokenizer.model", "vocab.json"),
        "which is not read for this kind of model; transformers writes tokenizer.json: "
        "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)",
    ),
}


def model_folder(folder: str | Path) -> Path:
    """Return the folder of a model.

    Raises
    ------
    FileNotFoundError
        If there is none. The message says that nothing is downloaded.
    NotADirectoryError
        If it is a file.
    ValueError
        If it holds changes to a model (a LoRA adapter) beside or instead of one.
    """
    path = Path(folder)
    if path.is_dir():
        adapter = path / "adapter_config.json"
        if adapter.exists():
            raise ValueError(
                f"{adapter} belongs to an adapter (LoRA), which is not applied: merge it into the "
                "model's weights first (peft's merge_and_unload)"
            )
        return path
    if path.exists():
        what = (
            "a GGUF file, which numattn.models.load reads" if path.suffix == ".gguf" else "a file"
        )
        raise NotADirectoryError(
            f"{path} is {what}; a model is loaded from its folder: the one with config.json and "
            "model.safetensors, or with a Marian model"
        )
    message = f"no folder {path}"
    if not path.is_absolute() and HUB_NAME.fullmatch(str(folder)):
        message += (
            "; nothing is downloaded, so a name on the Hugging Face hub is none: "
            f"`hf download {folder} --local-dir DIR` makes a folder"
        )
    raise FileNotFoundError(message)


def regular_file(path: Path) -> Path:
    """Return a path, of a regular file or of a link to one.

    Raises
    ------
    FileNotFoundError
        If there is none. The message names the way out, if other files stand in its place.
    ValueError
        If it is something else (a folder, or a pipe, which might never end), or stands for a file
        that has not been fetched.
    """
    if not path.exists():
        others, remedy = REMEDIES.get(path.name, ((), ""))
        there = [name for name in others if (path.parent / name).exists()]
        hint = f", but {there[0]}, {remedy}" if there else ""
        raise FileNotFoundError(f"no {path.name} in {path.parent}{hint}")
    if not path.is_file():
        raise ValueError(f"{path} is no regular file")
    with open(path, "rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise ValueError(
                f"{path} is a Git LFS pointer, not the file that it stands for: "
                "`git lfs pull` in its folder fetches that"
            )
    return path
