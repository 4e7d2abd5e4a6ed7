"""Whichever class carries out a model's folder."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from numpy.typing import DTypeLike

from .encoder.sentence_folder import read_modules
from .files.ctranslate2_file import ctranslate2_in
from .files.family import family_of
from .files.folder import model_folder
from .files.gguf_file import gguf_at
from .files.settings import Settings, shown

# model_type of config.json → module and class, which are imported when they are asked for.
CLASSES = {
    "albert": "encoder.albert:Albert",
    "bart": "encoder_decoder.bart:Bart",
    "bert": "encoder.bert:Bert",
    "camembert": "encoder.bert:Bert",
    "clip": "vision.clip:Clip",
    "deit": "vision.vit:ViT",
    "detr": "vision.detr:Detr",
    "dinov2": "vision.vit:ViT",
    "dinov2_with_registers": "vision.vit:ViT",
    "distilbert": "encoder.distilbert:DistilBert",
    "electra": "encoder.electra:Electra",
    "gemma": "decoders.llama:Llama",
    "gemma2": "decoders.llama:Llama",
    "gemma3_text": "decoders.llama:Llama",
    "gpt2": "decoders.gpt:Gpt",
    "gpt_neox": "decoders.neox:GptNeox",
    "gpt_oss": "decoders.llama:Llama",
    "granite": "decoders.llama:Llama",
    "gte": "encoder.gte:Gte",
    "llama": "decoders.llama:Llama",
    "marian": "encoder_decoder.bart:Bart",
    "mbart": "encoder_decoder.bart:Bart",
    "mistral": "decoders.llama:Llama",
    "mixtral": "decoders.llama:Llama",
    "modernbert": "encoder.modernbert:ModernBert",
    "mpnet": "encoder.mpnet:MPNet",
    "mt5": "encoder_decoder.t5:T5",
    "nomic_bert": "encoder.nomic:NomicBert",
    "olmo2": "decoders.llama:Llama",
    "phi3": "decoders.llama:Llama",
    "qwen2": "decoders.llama:Llama",
    "qwen3": "decoders.llama:Llama",
    "roberta": "encoder.bert:Bert",
    "siglip": "vision.clip:Clip",
    "siglip2": "vision.clip:Clip",
    "smollm3": "decoders.llama:Llama",
    "t5": "encoder_decoder.t5:T5",
    "vit": "vision.vit:ViT",
    "whisper": "encoder_decoder.whisper:Whisper",
    "xlm-roberta": "encoder.bert:Bert",
}
GGUF = "decoders.gguf:load_gguf"
# Of a folder of sentence-transformers', whose vectors a decoder makes.
EMBEDDER = "embedder.embedder:Embedder"
# How the names of classes end that have a head → what carries them out. Other heads are left out.
HEADS = {
    "ForSequenceClassification": "encoder.classifier:SequenceClassifier",
    "ForTokenClassification": "encoder.tagger:TokenClassifier",
    "ForQuestionAnswering": "encoder.answerer:QuestionAnswerer",
}
# A CLIP or SigLIP whose images have a classifier of their own.
IMAGES = ("ForImageClassification", "vision.image_classifier:ImageClassifier")
MARIAN = "translator.seq2seq:Seq2Seq"
# Specification of a folder of CTranslate2's → what loads it.
SPECIFICATIONS = {
    "TransformerSpec": "encoder_decoder.ctranslate2_bart:load_bart",
    "TransformerDecoderSpec": "decoders.ctranslate2:load_ctranslate2",
    "WhisperSpec": "encoder_decoder.ctranslate2_whisper:load_whisper",
}


def load(folder: str | Path, *, dtype: DTypeLike | None = None) -> Any:
    """Load a model by the class that its folder asks for.

    Parameters
    ----------
    folder : path
        The folder: of Hugging Face's kind, with config.json, of CTranslate2's, with model.bin, or
        of a Marian model. Or a GGUF file, or a folder of one.
    dtype : {None, float32, bfloat16, int8, "w8a8"}
        How weights are stored: float32 by default, and those of a GGUF file as they are quantised.

    Returns
    -------
    model
        What the class's own `from_folder` returns: a `Bert`, `Llama`, `Gpt`, `Seq2Seq` …; or a
        `SequenceClassifier`, `TokenClassifier` or `QuestionAnswerer`, where `architectures` of
        config.json names an encoder with such a head, an `ImageClassifier` where it names that of
        a CLIP or SigLIP; or an `Embedder`, where a modules.json says
        that vectors are wanted of a decoder.

    Raises
    ------
    FileNotFoundError, ImportError, ValueError
        As `from_folder` of the class does; and a ValueError if no class carries the folder out,
        which names the nearest that is supported.

    Examples
    --------
    >>> from numattn.models import installed_folder, load
    >>> model = load(installed_folder())
    >>> type(model).__name__
    'Bert'
    """
    file = gguf_at(Path(folder))
    if file is not None:
        return named(GGUF)(file, dtype=dtype)
    converted = ctranslate2_in(model_folder(folder))
    if converted is not None:
        return named(SPECIFICATIONS[converted.spec])(converted, dtype=dtype)
    return class_of(Path(folder)).from_folder(folder, dtype=dtype)


def class_of(folder: Path) -> Any:
    """Return the class that carries a folder out."""
    path = folder / "config.json"
    if not path.exists() and any(folder.glob("*.intgemm.alphas.bin")):
        return named(MARIAN)
    if not path.exists() and (folder / "modules.json").exists():  # the model is a folder in it
        places, _ = read_modules(folder / "modules.json", dense=True)
        path = folder / places["Transformer"] / path.name
    settings = Settings.from_file(path)
    family = settings.get("model_type")
    if family is None:
        family = family_of(settings, CLASSES)
    if not isinstance(family, str) or family not in CLASSES:
        raise ValueError(f"{path}: {unsupported(family)}")
    if CLASSES[family] == CLASSES["llama"] and (folder / "modules.json").exists():
        return named(EMBEDDER)
    head = head_of(settings, folder) if CLASSES[family].startswith("encoder.") else None
    if CLASSES[family] == CLASSES["clip"] and any(
        str(name).endswith(IMAGES[0]) for name in architectures(settings)
    ):
        head = IMAGES[1]
    return named(CLASSES[family] if head is None else head)


def head_of(settings: Settings, folder: Path) -> str | None:
    """Return what carries out the head that a config.json names; None where vectors are wanted.

    A folder of sentence-transformers' is of vectors, unless it says that it is a CrossEncoder.
    """
    if (folder / "modules.json").exists():
        path = folder / "config_sentence_transformers.json"
        kind = Settings.from_file(path).get("model_type") if path.exists() else None
        return HEADS["ForSequenceClassification"] if kind == "CrossEncoder" else None
    for name in architectures(settings):
        for ending, place in HEADS.items():
            if str(name).endswith(ending):
                return place
    return None


def architectures(settings: Settings) -> list[Any]:
    """Return the names of transformers' classes that a config.json has."""
    names = settings.get("architectures", [])
    return names if isinstance(names, list) else []


def named(place: str) -> Any:
    """Return the class, or the function, of a "module:Class" of this package."""
    module, name = place.split(":")
    return getattr(import_module(f"{__package__}.{module}"), name)


def unsupported(family: object) -> str:
    """Return what to say of a model_type that no class carries out."""
    near = get_close_matches(str(family), CLASSES, n=1)
    nearest = f"the nearest is {near[0]!r}; " if near else ""
    return f"model_type {shown(family)} is not supported; {nearest}supported are " + ", ".join(
        sorted(CLASSES)
    )
