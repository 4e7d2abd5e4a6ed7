"""What a folder says of how texts become vectors, as sentence-transformers reads it.

    modules.json                        which modules there are, and in which folders
    <Transformer>/sentence_*_config.json       how many tokens count, lower case
    <Pooling>/config.json               mean or cls
    config_sentence_transformers.json   words put before every text

Old and new versions of that library name the settings differently; both are read. A folder without
modules.json is one of transformers, whose vectors are means, unless a 1_Pooling says otherwise.
What would change a vector and is not carried out is refused by its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..files.json_file import read_json
from ..files.settings import Settings, shown
from .pooling import POOLINGS

# The modules of a folder that are carried out, in their order; each once at most.
MODULES = ("Transformer", "Pooling", "Normalize")
# What an embedder may have between the last two, any number of them.
DENSE = "Dense"

SETTINGS_FILES = tuple(
    f"sentence_{family}_config.json"
    for family in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
# Settings of such a file that do not touch what encode() returns, or not more than rounding does.
WITHOUT_EFFECT = {"unpad_inputs", "query_length", "document_length", "query_expansion"}
MODEL_ARGUMENTS = {"dtype", "torch_dtype", "attn_implementation", "trust_remote_code"}
TOKENIZER_ARGUMENTS = {"trust_remote_code", "use_fast", "padding_side", "model_max_length"}
PROCESSING = {"padding", "truncation", "max_length", "return_tensors", "pad_to_multiple_of"}
TEXT_MODALITY = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}

# Former settings of pooling → the names of now.
FORMER_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True)
class SentenceFolder:
    """How texts become vectors."""

    model: Path
    """The folder of config.json, model.safetensors and tokenizer.json."""
    max_tokens: int | None
    """How many tokens of a text count; None if it is not said here."""
    lower_case: bool
    """Whether texts are made lower case before the tokenizer reads them."""
    pooling: str
    """The name of a pooling in POOLINGS."""
    prompt: str
    """What is put before every text."""
    dense: tuple[Path, ...] = ()
    """The folders of projections of pooled vectors, in their order."""

    @classmethod
    def read(cls, folder: Path, *, dense: bool = False) -> SentenceFolder:
        """Read a folder, in which there may be projections of vectors if `dense`.

        Raises
        ------
        FileNotFoundError
            If a file that modules.json calls for is missing.
        ValueError
            If a file is damaged, or asks for something that is not supported.
        """
        projections: tuple[Path, ...] = ()
        if (folder / "modules.json").exists():
            places, between = read_modules(folder / "modules.json", dense)
            projections = tuple(folder / place for place in between)
            model = folder / places["Transformer"]
            pooling, include_prompt = read_pooling(folder / places["Pooling"] / "config.json")
        else:
            model, pooling, include_prompt = folder, "mean", True
            path = folder / "1_Pooling" / "config.json"
            if path.exists():
                pooling, include_prompt = read_pooling(path)
        prompt = read_prompt(folder / "config_sentence_transformers.json")
        if prompt and not include_prompt:
            raise ValueError(
                f"{folder}: include_prompt false with a default prompt is not supported"
            )
        max_tokens, lower_case = read_transformer(model)
        return cls(model, max_tokens, lower_case, pooling, prompt, projections)


def read_modules(path: Path, dense: bool = False) -> tuple[dict[str, str], list[str]]:
    """Return the folder of each module in a modules.json, from the folder that it stands in.

    And those of its Dense modules, which there may be if `dense`.
    """
    supported = [*MODULES[:2], *([DENSE] if dense else []), MODULES[2]]
    modules = read_json(path)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ValueError(f"{path} does not hold a list of modules")
    places: dict[str, str] = {}
    between: list[str] = []
    for module in modules:
        kind, place = module.get("type"), module.get("path", "")
        library, _, _ = str(kind).partition(".")
        name = str(kind).rpartition(".")[2]
        if library != "sentence_transformers" or name not in supported:
            raise ValueError(
                f"{path} has a module {name!r} ({shown(kind)}); supported are {supported}"
            )
        if not isinstance(place, str) or not inside(place):
            raise ValueError(f"{path}: path {shown(place)} is none in the folder")
        if name == DENSE and len(places) == 2:
            between.append(place)
            continue
        if name in places:
            raise ValueError(f"{path} has several modules {name!r}")
        places[name] = place
    order = tuple(places)
    if order not in (MODULES, MODULES[:2]):
        raise ValueError(f"{path} has modules {[*order]}; supported are {supported}, in that order")
    return places, between


def inside(place: str) -> bool:
    """Return whether a path names something in the folder that it starts from."""
    path = PurePosixPath(place)
    return place.isprintable() and not path.is_absolute() and ".." not in path.parts


def read_pooling(path: Path) -> tuple[str, bool]:
    """Return the pooling of a Pooling module's config.json, and whether it counts a prompt in."""
    settings = Settings.from_file(path)
    former = {
        mode: settings.flag(name, False)
        for name, mode in FORMER_POOLINGS.items()
        if name in settings.values
    }
    for name in settings.values:
        if name.startswith("pooling_mode_") and name not in FORMER_POOLINGS:
            raise ValueError(f"{path}: {name} is not supported")
    wanted = settings.get("pooling_mode")
    if wanted is None:
        wanted = [mode for mode, chosen in former.items() if chosen] or ["mean"]
    if isinstance(wanted, list) and len(wanted) == 1:
        wanted = wanted[0]
    if not isinstance(wanted, str) or wanted not in POOLINGS:
        raise ValueError(f"{path} asks for pooling {shown(wanted)}; supported are {[*POOLINGS]}")
    return wanted, settings.flag("include_prompt", True)


def read_prompt(path: Path) -> str:
    """Return the default prompt of a config_sentence_transformers.json; "" if there is none."""
    if not path.exists():
        return ""
    settings = Settings.from_file(path)
    settings.one_of("model_type", ("SentenceTransformer",), "SentenceTransformer")
    name = settings.get("default_prompt_name")
    if name is None:
        return ""
    # sentence-transformers has these two by itself.
    prompts = {"query": "", "document": "", **settings.part("prompts").values}
    prompt = prompts.get(name) if isinstance(name, str) else None
    if not isinstance(prompt, str):
        raise ValueError(f"{path}: default_prompt_name {shown(name)} names no text of its prompts")
    return prompt


def read_transformer(folder: Path) -> tuple[int | None, bool]:
    """Return how many tokens count, None if it is not said, and whether texts become lower case."""
    files = [folder / name for name in SETTINGS_FILES if (folder / name).exists()]
    # Of several, the first that says something.
    settings = next(filter(lambda file: file.values, map(Settings.from_file, files)), None)
    if settings is None:
        return None, False
    read = {
        "max_seq_length",
        "do_lower_case",
        "transformer_task",
        "modality_config",
        "module_output_name",
        "processing_kwargs",
        "model_args",
        "model_kwargs",
        "tokenizer_args",
        "processor_kwargs",
    }
    allow(settings, read | WITHOUT_EFFECT)
    settings.one_of("transformer_task", ("feature-extraction",), "feature-extraction")
    settings.one_of("module_output_name", ("token_embeddings",), "token_embeddings")
    modalities = settings.get("modality_config", TEXT_MODALITY)
    if modalities != TEXT_MODALITY:
        raise ValueError(f"{settings.path}: modality_config {shown(modalities)} is not supported")
    for name in ("model_args", "model_kwargs"):
        allow(settings.part(name), MODEL_ARGUMENTS, name)
    max_tokens = settings.optional_size("max_seq_length")
    for name in ("tokenizer_args", "processor_kwargs"):
        part = settings.part(name)
        allow(part, TOKENIZER_ARGUMENTS, name)
        max_tokens = part.optional_size("model_max_length") or max_tokens
    processing = settings.part("processing_kwargs")
    for name in ("common", "text"):
        part = processing.part(name)
        allow(part, PROCESSING, f"processing_kwargs {name}")
        part.one_of("truncation", (True, "longest_first", "only_first"), True)
        max_tokens = part.optional_size("max_length") or max_tokens
    return max_tokens, settings.flag("do_lower_case", False)


def allow(settings: Settings, names: set[str], where: str = "") -> None:
    """Raise ValueError for a setting that is not among those named, and not null or empty."""
    for name, value in settings.values.items():
        if name not in names and value not in (None, {}, []):
            raise ValueError(f"{settings.path}: {where} {name} {shown(value)} is not supported")
