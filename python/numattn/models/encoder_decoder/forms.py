"""The layers' form in fairseq's family: BART, mBART, Marian, Whisper."""

from __future__ import annotations

from ..files.activations import Activation
from .attentions import AttentionForm
from .layers import LayerForm, read_layer_norm

NAMES = ("q_proj", "k_proj", "v_proj", "out_proj")
NORM_EPS = 1e-5


def fairseq_form(
    width: int,
    heads: int,
    ffn_size: int,
    activation: Activation,
    *,
    norm_first: bool,
    keys_biased: bool = True,
    norm_eps: float = NORM_EPS,
) -> LayerForm:
    """Return the form of an encoder's or a decoder's layers."""
    biased = (True, keys_biased, True, True)
    attention = AttentionForm(width, heads, width // heads, None, NAMES, biased)
    return LayerForm(
        attention, ffn_size, activation, norm_first, read_layer_norm(norm_eps, width),
        ("self_attn", "self_attn_layer_norm"),
        ("encoder_attn", "encoder_attn_layer_norm"),
        ("fc1", "fc2", "final_layer_norm"),
    )  # fmt: skip
