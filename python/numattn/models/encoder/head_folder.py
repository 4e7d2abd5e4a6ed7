"""What a folder of a model with a head says beside its config.json.

sentence-transformers' cross-encoders have a modules.json of one module since its version 6, and
tell there or in config.json what becomes of their logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..files.json_file import read_json
from ..files.settings import Settings, shown
from .sentence_folder import SETTINGS_FILES, inside

# What becomes of the logits of a cross-encoder, by the last name of the class in PyTorch.
ACTIVATIONS = ("Sigmoid", "Identity")
SETTINGS_READ = {
    "max_seq_length",
    "do_lower_case",
    "transformer_task",
    "modality_config",
    "module_output_name",
    "unpad_inputs",
}
TASKS = ("sequence-classification",)


@dataclass(frozen=True)
class HeadFolder:
    """How texts become logits, and logits scores."""

    model: Path
    max_tokens: int | None
    lower_case: bool
    activation: str | None
    """One of ACTIVATIONS; None if nothing says."""
    types: bool
    """Whether the tokenizer's types of tokens are used."""

    @classmethod
    def read(cls, folder: Path) -> HeadFolder:
        """Read a folder.

        Raises
        ------
        FileNotFoundError
            If there is no config.json.
        ValueError
            If a file is damaged, or asks for something that is not supported.
        """
        model, max_tokens, lower_case = folder, None, False
        if (folder / "modules.json").exists():
            model = folder / only_module(folder / "modules.json")
            max_tokens, lower_case = read_settings(model)
        return cls(
            model, max_tokens, lower_case, read_activation(folder, model), reads_types(model)
        )


def only_module(path: Path) -> str:
    """Return the folder of the one module of a cross-encoder."""
    modules = read_json(path)
    if isinstance(modules, list) and len(modules) == 1 and isinstance(modules[0], dict):
        kind, place = str(modules[0].get("type")), modules[0].get("path", "")
        if (
            kind.startswith("sentence_transformers.")
            and kind.endswith(".Transformer")
            and isinstance(place, str)
            and inside(place)
        ):
            return place
    raise ValueError(f"{path} has other modules than one Transformer: not supported with a head")


def read_settings(folder: Path) -> tuple[int | None, bool]:
    """Return how many tokens count, None if it is not said, and whether texts become lower case."""
    for name in SETTINGS_FILES:
        if (folder / name).exists():
            settings = Settings.from_file(folder / name)
            for key, value in settings.values.items():
                if key not in SETTINGS_READ and value not in (None, {}, []):
                    raise ValueError(f"{settings.path}: {key} {shown(value)} is not supported")
            settings.one_of("transformer_task", TASKS, TASKS[0])
            return settings.optional_size("max_seq_length"), settings.flag("do_lower_case", False)
    return None, False


def read_activation(folder: Path, model: Path) -> str | None:
    """Return what becomes of logits; None if nothing says."""
    config = Settings.from_file(model / "config.json")
    name = config.part("sentence_transformers").get("activation_fn")
    name = config.get("sbert_ce_default_activation_function") if name is None else name
    path = folder / "config_sentence_transformers.json"
    if path.exists():
        settings = Settings.from_file(path)
        if settings.get("default_prompt_name") is not None:
            raise ValueError(f"{path}: a default prompt is not supported with a head")
        name = settings.get("activation_fn", name)
    if name is None:
        return None
    last = str(name).rpartition(".")[2]
    if not str(name).startswith("torch.nn.") or last not in ACTIVATIONS:
        raise ValueError(
            f"{folder}: activation_fn {shown(name)} is not supported; supported: {[*ACTIVATIONS]}"
        )
    return last


def reads_types(folder: Path) -> bool:
    """Return whether a folder's tokenizer gives types of tokens to its model."""
    path = folder / "tokenizer_config.json"
    settings = Settings.from_file(path) if path.exists() else Settings({}, path)
    names = settings.get("model_input_names", ["token_type_ids"])
    if not isinstance(names, list):
        raise ValueError(f"{path}: model_input_names must be a list, not {shown(names)}")
    return "token_type_ids" in names
