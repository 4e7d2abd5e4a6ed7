"""The rotary positions that a Hugging Face ``config.json`` describes, under whichever names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from numattn._arguments import size

# What families call the two numbers that most of them call so.
NAMES = {
    "rope_theta": ("rope_theta", "rotary_emb_base"),
    "partial_rotary_factor": ("partial_rotary_factor", "rotary_pct"),
}
# Taken to be so by the classes of those families where a configuration leaves it out.
DEFAULTS: dict[str, dict[str, float]] = {
    "gpt_neox": {"partial_rotary_factor": 0.25},
    "minimax_m2": {"rope_theta": 5e6},
}
# Names that have "rope" or "rotary" in them, and leave the angles as they are.
OTHERS = {
    "rope_scaling", "rope_parameters", "rotary_dim", "qk_rope_head_dim", "qk_nope_head_dim",
    "global_rope_theta", "local_rope_theta", "rope_local_base_freq", "rope_interleave",
    "rope_interleaved", "no_rope_layers", "no_rope_layer_interval",
}  # fmt: skip
KINDS = ("full_attention", "sliding_attention")


class Layered(NamedTuple):
    """How a family whose layers turn by two sets of frequencies told so before rope_parameters."""

    full_theta: tuple[str, float]
    """The name of the base in layers that attend to everything, and what it is without one."""
    sliding_theta: tuple[str, float]
    sliding_scaled: bool  # whether rope_scaling is for these layers, too


MODERN_BERT = Layered(("global_rope_theta", 160000.0), ("local_rope_theta", 10000.0), True)
GEMMA_3 = Layered(("rope_theta", 1e6), ("rope_local_base_freq", 10000.0), False)
OLMO_3 = Layered(("rope_theta", 500000.0), ("rope_theta", 500000.0), False)
LAYERED = {
    "modernbert": MODERN_BERT,
    "modernbert-decoder": MODERN_BERT,
    "gemma3_text": GEMMA_3,
    "gemma3n_text": GEMMA_3,
    "olmo3": OLMO_3,
}


def rope_settings(config: Mapping[str, Any], layer_type: str | None) -> tuple[int, dict[str, Any]]:
    """Return the elements of a head and its scaling, as `Rope` takes them.

    Raises
    ------
    ValueError
        If the elements cannot be told, names contradict one another, ``layer_type`` is missing or
        unknown, or the configuration has a name that is not known here.
    """
    for name in config:
        known = name in OTHERS or any(name in names for names in NAMES.values())
        if not known and config[name] is not None and re.search(r"(^|_)(rope|rotary)", str(name)):
            raise ValueError(f"{name!r} of the config is not supported: {config[name]!r}")
    scaling = layer_scaling(config, layer_type)
    defaults = DEFAULTS.get(str(config.get("model_type")), {})
    for name in NAMES:
        value = named(config, name)
        if value is None:
            value = defaults.get(name)
        if value is not None and scaling.get(name) is None:
            scaling[name] = value
    if config.get("max_position_embeddings") is not None:
        scaling.setdefault("max_position_embeddings", config["max_position_embeddings"])
    if config.get("original_max_position_embeddings") is not None:
        scaling["original_max_position_embeddings"] = config["original_max_position_embeddings"]
    for name in ("qk_rope_head_dim", "rotary_dim"):  # the elements that turn, and no part of them
        if config.get(name) is not None:
            scaling.pop("partial_rotary_factor", None)
            return size(name, config[name], least=1), scaling
    return head_dim(config), scaling


def named(config: Mapping[str, Any], name: str) -> Any:
    """Return a number under whichever of its names; None if there is none."""
    given = {each: config[each] for each in NAMES[name] if config.get(each) is not None}
    first, *others = given.values() or (None,)
    if any(other != first for other in others):
        raise ValueError(f"the config contradicts itself: {given}")
    return first


def head_dim(config: Mapping[str, Any]) -> int:
    """Return the elements of a head."""
    if config.get("head_dim") is not None:
        return size("head_dim", config["head_dim"], least=1)
    for name in ("hidden_size", "num_attention_heads"):
        if config.get(name) is None:
            raise ValueError(f"config has neither 'head_dim' nor {name!r}")
    heads = size("num_attention_heads", config["num_attention_heads"], least=1)
    return size("hidden_size", config["hidden_size"], least=1) // heads


def layer_scaling(config: Mapping[str, Any], layer_type: str | None) -> dict[str, Any]:
    """Return the parameters of layers of a type: from rope_scaling, or else rope_parameters."""
    parameters = chosen_parameters(config)
    layers = [name for name, value in parameters.items() if isinstance(value, Mapping)]
    if layers:
        if layer_type not in layers:
            raise ValueError(f"layer_type must be one of {', '.join(layers)}, not {layer_type!r}")
        return dict(parameters[layer_type])
    layered = LAYERED.get(str(config.get("model_type")))
    if config.get("rope_local_base_freq") is not None:
        layered = GEMMA_3
    elif config.get("global_rope_theta") is not None or config.get("local_rope_theta") is not None:
        layered = MODERN_BERT
    if layered is None:
        return dict(parameters)
    if layer_type not in KINDS:
        raise ValueError(
            f"layer_type must be one of {', '.join(KINDS)}, for which the config has two bases or "
            f"scalings, not {layer_type!r}"
        )
    full = layer_type == "full_attention"
    scaling = dict(parameters) if full or layered.sliding_scaled else {}
    name, default = layered.full_theta if full else layered.sliding_theta
    theta = default if config.get(name) is None else config[name]
    return {**scaling, "rope_theta": scaling.get("rope_theta", theta)}


def chosen_parameters(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return rope_scaling, which is what people add to a file, or else rope_parameters."""
    both = [config.get(name) or {} for name in ("rope_scaling", "rope_parameters")]
    for name, given in zip(("rope_scaling", "rope_parameters"), both, strict=True):
        if not isinstance(given, Mapping):
            raise ValueError(f"{name} of the config must be an object, not {given!r}")
    scaling, parameters = both
    if not scaling:
        return parameters
    if any(isinstance(value, Mapping) for value in parameters.values()):
        raise ValueError(
            "the config has rope_parameters by type of layer, and rope_scaling beside them: put it "
            "into those of the layers that it is for"
        )
    for name, usual in (("rope_theta", 10000.0), ("partial_rotary_factor", 1.0)):
        lost = parameters.get(name)
        told = scaling.get(name)
        if told is None:
            told = usual if named(config, name) is None else named(config, name)
        if lost is not None and lost != told:
            raise ValueError(
                f"{name} is {lost} in the config's rope_parameters and {told} by its rope_scaling, "
                "which takes their place: put all into one of the two"
            )
    return scaling
