"""Sizes of a stack of layers in a folder of CTranslate2's."""

from __future__ import annotations

from typing import NamedTuple

from ..files.ctranslate2_tensors import Ctranslate2Tensors


class Sizes(NamedTuple):
    """How many layers a stack has, how many heads a layer has, and how wide its MLP is."""

    layers: int
    heads: int
    ffn_size: int


def read_sizes(tensors: Ctranslate2Tensors, stack: str, width: int) -> Sizes:
    """Return the sizes of "encoder" or "decoder", whose tokens have `width` numbers."""
    path, count = tensors.file.path, tensors.count_layers(f"{stack}/layer")
    if not count:
        raise ValueError(f"{path} has no variables {stack}/layer_0/…")
    heads = int(tensors.number(f"{stack}/num_heads", 8))
    if heads < 1 or width % heads:
        raise ValueError(f"{path}: {width} numbers do not divide into {heads} {stack}/num_heads")
    return Sizes(count, heads, tensors.size(f"{stack}/layer_0/ffn/linear_0/weight", 0))
