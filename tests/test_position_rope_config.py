"""`Rope.from_config` on the names of other families: right, or an error that has the name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from numattn.position import Rope

HEAD = {"hidden_size": 512, "num_attention_heads": 8, "max_position_embeddings": 2048}
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 256}
LINEAR = {"rope_type": "linear", "factor": 8.0}
DEEPSEEK = {"model_type": "deepseek_v3", "qk_rope_head_dim": 32, "qk_nope_head_dim": 64}

# What a configuration says, of which layers: elements that turn, their base, what they are
# divided by.
RIGHT: dict[str, tuple[dict[str, Any], str | None, int, float, float]] = {
    "pythia": ({"rotary_pct": 0.25, "rotary_emb_base": 10000}, None, 16, 1e4, 1),
    "neox, another base": ({"rotary_pct": 1.0, "rotary_emb_base": 25000}, None, 64, 25e3, 1),
    "neox, nothing said": ({"model_type": "gpt_neox"}, None, 16, 1e4, 1),
    "modernbert, full": (
        {"global_rope_theta": 160000.0, "local_rope_theta": 1e4}, "full_attention", 64, 16e4, 1
    ),
    "modernbert, sliding": (
        {"global_rope_theta": 160000.0, "local_rope_theta": 3e4}, "sliding_attention", 64, 3e4, 1
    ),
    "modernbert, one said": ({"local_rope_theta": 3e4}, "full_attention", 64, 16e4, 1),
    "modernbert, nothing said": ({"model_type": "modernbert"}, "sliding_attention", 64, 1e4, 1),
    "gemma 3, full": (
        {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": LINEAR},
        "full_attention", 64, 1e6, 8,
    ),
    "gemma 3, sliding": (
        {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": LINEAR},
        "sliding_attention", 64, 1e4, 1,
    ),
    "gemma 3, nothing said": ({"model_type": "gemma3_text"}, "full_attention", 64, 1e6, 1),
    "olmo 3, full": (
        {"model_type": "olmo3", "rope_theta": 5e5, "rope_scaling": LINEAR},
        "full_attention", 64, 5e5, 8,
    ),
    "olmo 3, sliding": (
        {"model_type": "olmo3", "rope_theta": 3e5, "rope_scaling": YARN},
        "sliding_attention", 64, 3e5, 1,
    ),
    "deepseek": ({**DEEPSEEK, "rope_theta": 1e4, "rope_interleave": True}, None, 32, 1e4, 1),
    "minimax": ({"head_dim": 128, "rotary_dim": 64, "rope_theta": 5e6}, None, 64, 5e6, 1),
    "gpt-j": ({"rotary_dim": 64, "hidden_size": None}, None, 64, 1e4, 1),
    "scaling beside parameters": (
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}, "rope_scaling": LINEAR},
        None, 64, 1e4, 8,
    ),
    "scaling that repeats the base": (
        {"rope_parameters": {"rope_theta": 5e5}, "rope_scaling": {**LINEAR, "rope_theta": 5e5}},
        None, 64, 5e5, 8,
    ),
    "an empty scaling": (
        {"rope_parameters": {**LINEAR, "rope_theta": 5e5}, "rope_scaling": {}}, None, 64, 5e5, 8
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_names_of_other_families(name: str) -> None:
    given, layer_type, elements, base, divisor = RIGHT[name]
    rope = Rope.from_config({**HEAD, **given}, layer_type=layer_type)
    expected = base ** (-np.arange(0, elements, 2) / elements) / divisor
    np.testing.assert_allclose(rope.frequencies(), expected, rtol=1e-13)


# Model type → what its configuration is made with, and for which kinds of layer it turns.
FAMILIES: dict[str, tuple[dict[str, Any], tuple[str | None, ...]]] = {
    "gpt_neox": ({"rotary_pct": 0.5, "rotary_emb_base": 30000.0}, (None,)),
    "modernbert": ({}, ("full_attention", "sliding_attention")),
    "gemma3_text": ({"head_dim": 64}, ("full_attention", "sliding_attention")),
    "olmo3": ({}, ("full_attention", "sliding_attention")),
    "deepseek_v3": ({"qk_rope_head_dim": 32, "qk_nope_head_dim": 32}, (None,)),
    "minimax_m2": ({"head_dim": 128, "rotary_dim": 64}, (None,)),
    "phi": ({"partial_rotary_factor": 0.5}, (None,)),
    "llama": ({"rope_theta": 5e5}, (None,)),
}


@pytest.mark.parametrize("scaling", [None, LINEAR], ids=["plain", "linear"])
@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_reads_the_same(family: str, scaling: dict[str, Any] | None) -> None:
    transformers = pytest.importorskip("transformers")
    given, kinds = FAMILIES[family]
    config = {**HEAD, **given, "model_type": family}
    if scaling is not None:
        config["rope_scaling"] = dict(scaling)
    theirs = transformers.AutoConfig.for_model(**config | {"rope_scaling": scaling and {**scaling}})
    for kind in kinds:
        rope = Rope.from_config(config, layer_type=kind)
        parameters = theirs.rope_parameters if kind is None else theirs.rope_parameters[kind]
        head = getattr(theirs, "head_dim", None) or 64
        elements = int(head * parameters.get("partial_rotary_factor", 1.0))
        assert rope.dim == elements and rope.base == parameters["rope_theta"]
        factor = parameters.get("factor", 1.0) if parameters["rope_type"] == "linear" else 1.0
        plain = Rope(elements, base=rope.base).frequencies()
        np.testing.assert_allclose(rope.frequencies(), plain / factor, rtol=1e-13)
        # What transformers saves says the same once more.
        again = Rope.from_config(theirs.to_dict(), layer_type=kind)
        np.testing.assert_array_equal(again.frequencies(), rope.frequencies())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rope_ratio": 4.0}, "'rope_ratio' of the config is not supported: 4.0"),
        ({"use_rotary_xpos": True}, "'use_rotary_xpos' of the config is not supported"),
        ({"rope_theta": 1e4, "rotary_emb_base": 2e4}, "the config contradicts itself: {'rope_thet"),
        ({"partial_rotary_factor": 0.5, "rotary_pct": 1.0}, "the config contradicts itself"),
        ({"rope_local_base_freq": 1e4}, "layer_type must be one of full_attention, sliding_attent"),
        ({"local_rope_theta": 1e4}, "layer_type must be one of .*, not None"),
        ({"model_type": "olmo3"}, "layer_type must be one of .*, not None"),
        ({"rope_scaling": [1]}, r"rope_scaling of the config must be an object, not \[1\]"),
        (
            {"rope_parameters": "yarn"},
            "rope_parameters of the config must be an object, not 'yarn'",
        ),
        ({"rotary_dim": 0}, "rotary_dim must be 1 or more, not 0"),
        (
            {"rope_parameters": {"rope_theta": 1e6}, "rope_scaling": LINEAR},
            "rope_theta is 1000000.0 in the config's rope_parameters and 10000.0 by its rope_scal",
        ),
        (
            {"rope_parameters": {"partial_rotary_factor": 0.5}, "rope_scaling": LINEAR},
            "partial_rotary_factor is 0.5 in the config's rope_parameters and 1.0 by its rope_sca",
        ),
        (
            {"rope_parameters": {"full_attention": {}}, "rope_scaling": LINEAR},
            "rope_parameters by type of layer, and rope_scaling beside them",
        ),
    ],
)
def test_what_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rope.from_config({**HEAD, **config})
