"""How the layers of a decoder of Llama's family turn their heads, and how far back they see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from numattn.position import Rope

from ..files.settings import Settings, shown
from .llama_families import FAMILIES

SLIDING, FULL = "sliding_attention", "full_attention"
# GPT-OSS', where a file says nothing of it.
YARN: dict[str, Any] = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}


def read_ropes(settings: Settings, family: str, head_size: int) -> tuple[Rope | None, ...]:
    """Return the rotary positions of each layer, in whichever way the file describes them.

    Layers of Gemma 3 turn by one of two sets of frequencies, by how far they see; some of SmolLM 3
    do not turn.
    """
    layers = settings.size("num_hidden_layers")
    kinds: list[str | None] = [None] * layers
    if family == "gemma3_text":
        kinds = [*read_layer_types(settings, family)]
    ropes = {kind: read_rope(settings, family, head_size, kind) for kind in set(kinds)}
    lengths = {rope.switch_length for rope in ropes.values() if rope.switch_length is not None}
    if len(lengths) > 1:
        raise ValueError(f"{settings.path}: longrope of two lengths {lengths} is not supported")
    turning = read_turning(settings, layers) if family == "smollm3" else [True] * layers
    return tuple(ropes[kind] if turn else None for kind, turn in zip(kinds, turning, strict=True))


def read_rope(
    settings: Settings, family: str, head_size: int, layer_type: str | None = None
) -> Rope:
    """Return the rotary positions of layers of a type, or raise ValueError."""
    for name in ("rope_parameters", "rope_scaling"):
        settings.part(name)  # which must be an object
    values = {**settings.values, "head_dim": head_size}
    try:
        with np.errstate(over="raise", divide="raise", invalid="raise"):
            return make_rope(values, family, head_size, layer_type)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"{settings.path}: {error}") from None


def make_rope(
    values: Mapping[str, Any], family: str, head_size: int, layer_type: str | None
) -> Rope:
    """Return the rotary positions of a config.json's settings, or raise."""
    given = dict(values)
    if family == "phi3":
        for name in ("rope_parameters", "rope_scaling"):
            given[name] = phi_scaling(given.get(name) or {})
    if (
        family == "gpt_oss"
        and given.get("rope_parameters") is None
        and not given.get("rope_scaling")
    ):
        given["rope_parameters"] = YARN
    rope = Rope.from_config(given, layer_type=layer_type)
    partial = family == "gpt_neox" or FAMILIES[family].partial_rotary
    if not partial and rope.dim != head_size:
        raise ValueError(
            f"partial_rotary_factor is not supported for {family}: by it {rope.dim} of "
            f"{head_size} elements of a head turn"
        )
    return rope


def phi_scaling(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a scaling of Phi-3's, of which there is one kind, under several names."""
    scaling = {name: value for name, value in given.items() if name != "type"}
    kind = given.get("rope_type", given.get("type"))
    if kind is not None:
        if kind not in ("default", "longrope", "su", "yarn"):
            raise ValueError(f"rope_type {shown(kind)} is not supported for phi3: longrope is")
        scaling["rope_type"] = "default" if kind == "default" else "longrope"
    return scaling


def read_turning(settings: Settings, layers: int) -> list[bool]:
    """Return which layers of SmolLM 3 turn: those that no_rope_layers has a 1 for.

    Without that, all but every no_rope_layer_interval-th.
    """
    given = settings.get("no_rope_layers")
    if given is None:
        interval = settings.size("no_rope_layer_interval", 4)
        return [(layer + 1) % interval != 0 for layer in range(layers)]
    valid = isinstance(given, list) and all(type(one) is int and one in (0, 1) for one in given)
    if not valid or len(given) < layers:
        raise ValueError(
            f"{settings.path}: no_rope_layers must have 1 or 0 for each of {layers} layers, not "
            f"{shown(given)}"
        )
    return [one == 1 for one in given[:layers]]


def read_windows(settings: Settings, family: str) -> tuple[int | None, ...]:
    """Return how many keys before its own a query of each layer sees.

    A sliding_window of W counts the query's own key, and so reaches W − 1 back.
    """
    size = window_size(settings, family)
    kinds = read_layer_types(settings, family)
    if size is None and SLIDING in kinds:
        raise ValueError(
            f"{settings.path}: layer_types names sliding_attention, and there is no "
            "sliding_window for it"
        )
    return tuple(size - 1 if kind == SLIDING and size is not None else None for kind in kinds)


def window_size(settings: Settings, family: str) -> int | None:
    """Return how many keys a query of a layer with a window sees; None where none has one."""
    if family in ("gemma", "granite", "llama", "olmo2"):  # whose models do not look at it
        return None
    chosen = family in ("qwen2", "qwen3", "smollm3")
    if chosen and not settings.flag("use_sliding_window", False):
        return None
    return settings.optional_size("sliding_window")


def read_layer_types(settings: Settings, family: str) -> list[str]:
    """Return which layers see all keys before theirs, and which those of a window.

    It is said by layer_types; in files without that, the window is that of every layer of Mistral,
    Mixtral and Phi-3, every other one of Gemma-2 and GPT-OSS from the first on, those of Qwen-2 and
    Qwen 3 from max_window_layers on, those of SmolLM 3 that do not turn, and all but every sixth of
    Gemma 3.
    """
    layers = settings.size("num_hidden_layers")
    given = settings.get("layer_types")
    if given is not None:
        if family == "mixtral":  # whose model has one kind, whatever its file says
            raise ValueError(f"{settings.path}: layer_types is not supported for mixtral")
        known = [SLIDING, FULL]
        if not isinstance(given, list) or len(given) != layers or not set(given) <= set(known):
            raise ValueError(
                f"{settings.path}: layer_types must name one of {known} for each of {layers} "
                f"layers, not {shown(given)}"
            )
        return given
    if family == "gemma3_text":
        pattern = settings.size("sliding_window_pattern", 6)
        slides = [(layer + 1) % pattern != 0 for layer in range(layers)]
    elif window_size(settings, family) is None:
        slides = [False] * layers
    elif family in ("gemma2", "gpt_oss"):
        slides = [layer % 2 == 0 for layer in range(layers)]
    elif family in ("qwen2", "qwen3"):
        first = settings.whole("max_window_layers", 0)
        slides = [layer >= first for layer in range(layers)]
    elif family == "smollm3":
        slides = [not turns for turns in read_turning(settings, layers)]
    else:
        slides = [True] * layers
    return [SLIDING if slide else FULL for slide in slides]
