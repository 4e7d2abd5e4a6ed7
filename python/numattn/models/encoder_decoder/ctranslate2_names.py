"""What CTranslate2's encoder–decoders call the tensors of fairseq's family, and what is joined.

decoder.layers.2.encoder_attn.k_proj.weight
= the first half of decoder/layer_2/attention/linear_1/weight
"""

from __future__ import annotations

import re

from ..files.ctranslate2_tensors import Place

HEAD = "decoder/projection"
TABLES = {"encoder": "encoder/embeddings_0", "decoder": "decoder/embeddings"}
# Of a layer: a part → where it stands, and which of the parts of what is joined there it is.
PARTS: dict[str, tuple[str, int | None]] = {
    "self_attn.q_proj": ("self_attention/linear_0", 0),
    "self_attn.k_proj": ("self_attention/linear_0", 2),
    "self_attn.v_proj": ("self_attention/linear_0", 1),
    "self_attn.out_proj": ("self_attention/linear_1", None),
    "self_attn_layer_norm": ("self_attention/layer_norm", None),
    "encoder_attn.q_proj": ("attention/linear_0", None),
    "encoder_attn.k_proj": ("attention/linear_1", 2),
    "encoder_attn.v_proj": ("attention/linear_1", 1),
    "encoder_attn.out_proj": ("attention/linear_2", None),
    "encoder_attn_layer_norm": ("attention/layer_norm", None),
    "fc1": ("ffn/linear_0", None),
    "fc2": ("ffn/linear_1", None),
    "final_layer_norm": ("ffn/layer_norm", None),
}
NORMS = {"weight": "gamma", "bias": "beta"}
IN_LAYER = re.compile(r"(encoder|decoder)\.layers\.(\d+)\.(.+)\.(weight|bias)")
IN_STACK = re.compile(r"(encoder|decoder)\.(.+)\.(weight|bias)")


def place_of(name: str) -> Place:
    """Return where a tensor stands; of a stem of layers, what their names begin with.

    >>> place_of("encoder.layers.0.self_attn.q_proj.bias")
    Place(name='encoder/layer_0/self_attention/linear_0/bias', part=0)
    >>> place_of("decoder.layer_norm.weight")
    Place(name='decoder/layer_norm/gamma', part=None)
    """
    if name.endswith(".layers"):
        return Place(f"{name.removesuffix('.layers')}/layer_")
    if name in ("lm_head.weight", "proj_out.weight"):
        return Place(f"{HEAD}/weight")
    if name == "final_logits_bias":
        return Place(f"{HEAD}/bias")
    if match := IN_LAYER.fullmatch(name):
        stack, number, part, kind = match.groups()
        stored, place = PARTS.get(part, (part, None))
        kind = NORMS[kind] if stored.endswith("layer_norm") else kind
        return Place(f"{stack}/layer_{number}/{stored}/{kind}", place)
    if match := IN_STACK.fullmatch(name):
        stack, part, kind = match.groups()
        if part == "embed_tokens":
            return Place(f"{TABLES[stack]}/{kind}")
        if part == "embed_positions":
            return Place(f"{stack}/position_encodings/encodings")
        return Place(f"{stack}/{part}/{NORMS[kind] if 'norm' in part else kind}")
    return Place(name)
