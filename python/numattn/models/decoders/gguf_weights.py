"""The tensors of a GGUF file by the names, and in the order, that a folder's have."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..files.checkpoint import check_all_taken, check_count
from ..files.gguf_file import GgufFile
from ..files.integers import Integers
from ..files.tensors import Tensors
from .head import HEAD

LLAMA = {
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
# Experts stand in three tensors for all of a layer, one after the other.
MIXTRAL = {**LLAMA, "block_sparse_moe.gate": "ffn_gate_inp"}
EXPERT = re.compile(r"block_sparse_moe\.experts\.(\d+)\.(w[123])")
EXPERTS = {"w1": "ffn_gate_exps", "w2": "ffn_down_exps", "w3": "ffn_up_exps"}
# Gemma 2 and 3, whose layers normalise before and after.
GEMMA = {
    **LLAMA,
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
GPT = {
    "wte": "token_embd",
    "wpe": "position_embd",
    "ln_f": "output_norm",
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
NAMES = {"gemma2": GEMMA, "gemma3_text": GEMMA, "gpt2": GPT, "mixtral": MIXTRAL}
FULL_NAME = re.compile(r"(?:(?:layers|h)\.(\d+)\.)?(.+)\.(weight|bias)")
# Rotary frequencies, which belong to the configuration.
FREQUENCIES = r"rope_(freqs|factors_long|factors_short)\.weight"


class GgufTensors(Tensors):
    """The tensors of a file as `Checkpoint` gives those of a folder of that model_type.

    Parameters
    ----------
    file : GgufFile
        The file.
    family : str
        The model_type.
    turned_heads : dict of str to int
        For a file whose heads turn by neighbours, as those of the architecture llama do: how many
        heads stand in the rows of "attn_q" and "attn_k".
    experts : int
        How many a layer has; 0 for none.
    keeps : bool
        Whether quantised weights are kept as they are, where `Linear` can.
    """

    def __init__(
        self,
        file: GgufFile,
        family: str,
        turned_heads: Mapping[str, int],
        experts: int = 0,
        keeps: bool = False,
    ) -> None:
        self.file, self.family, self.experts, self.keeps = file, family, experts, keeps
        self._names = NAMES.get(family, LLAMA)
        self._turned_heads = turned_heads
        self._taken: set[str] = set()

    def take(
        self,
        name: str,
        shape: Sequence[int],
        *,
        from_root: bool = False,
        dtype: DTypeLike = np.float32,
    ) -> NDArray[Any]:
        """Return a tensor, of exactly that shape, as float32 or `dtype`."""
        # GPT-2's projections stand as (in, out) in its folders, and as (out, in) here.
        turned = self.family == "gpt2" and len(shape) == 2 and name.startswith("h.")
        stored = self._found(name, tuple(shape)[::-1] if turned else tuple(shape))
        numbers = self.file.numbers(stored, dtype, expert_in(name))
        heads = self._turned(stored)
        if heads is not None:
            numbers = halves_together(numbers, heads)
        return numbers.T if turned else numbers

    def take_integers(self, name: str, shape: tuple[int, int]) -> Integers | None:
        """Return a quantised tensor as it is kept; None for one of which floats are wanted."""
        if not self.keeps:
            return None
        stored = self._found(name, shape)
        found = self.file.integers(stored, expert_in(name))
        heads = self._turned(stored)
        if found is None or heads is None:
            return found
        return found.rows(halves_together(np.arange(shape[0]), heads))

    def _found(self, name: str, shape: tuple[int, ...]) -> str:
        """Return what the file calls a tensor, which is there and of that shape."""
        stored = self.stored_name(name)
        if stored not in self.file.names:
            raise ValueError(f"{self.file.path} has no tensor {stored} (for {name})")
        wanted = shape if expert_in(name) is None else (self.experts, *shape)
        if self.file.shape(stored) != wanted:
            raise ValueError(
                f"tensor {stored} in {self.file.path} has shape {self.file.shape(stored)}, but the "
                f"metadata call for {wanted}"
            )
        self._taken.add(stored)
        return stored

    def _turned(self, stored: str) -> int | None:
        """Return how many heads stand in a tensor's rows that turn by neighbours."""
        return self._turned_heads.get(stored.split(".")[-2])

    def take_bytes(self, name: str, shape: Sequence[int]) -> NDArray[np.uint8]:
        """Raise ValueError: no family that is read from such a file has bytes for weights."""
        raise ValueError(f"{self.file.path} has no tensor {name} of bytes")

    def has(self, name: str, *, from_root: bool = False) -> bool:
        """Return whether there is a tensor of that name."""
        return self.stored_name(name) in self.file.names

    def check_layers(self, stem: str, count: int, setting: str) -> None:
        """Raise ValueError unless there are `count` layers."""
        check_count(self.file.path, self.file.names, "blk.", count, "block_count")

    def finish(self) -> None:
        """Raise ValueError if a tensor has not been taken."""
        check_all_taken(self.file.path, self.file.names, self._taken, FREQUENCIES)

    def stored_name(self, name: str) -> str:
        """Return what the file calls a tensor.

        >>> GgufTensors.stored_name(..., "layers.2.mlp.up_proj.weight")  # doctest: +SKIP
        'blk.2.ffn_up.weight'
        """
        if name == HEAD:
            return "output.weight"
        match = FULL_NAME.fullmatch(name)
        if match is None:
            return name
        layer = "" if match[1] is None else f"blk.{match[1]}."
        if expert := EXPERT.fullmatch(match[2]):
            return f"{layer}{EXPERTS[expert[2]]}.{match[3]}"
        if match[2] not in self._names:
            return name
        return f"{layer}{self._names[match[2]]}.{match[3]}"


def expert_in(name: str) -> int | None:
    """Return which expert a tensor is of, or None.

    >>> expert_in("layers.2.block_sparse_moe.experts.7.w1.weight")
    7
    """
    match = EXPERT.search(name)
    return None if match is None else int(match[1])


def halves_together(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """Return rows (H·D, ...) of which elements 2i and 2i + 1 of a head were i and i + D/2.

    >>> halves_together(np.array([0, 2, 1, 3]), 1)
    array([0, 1, 2, 3])
    """
    pairs = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    together: NDArray[Any] = pairs.swapaxes(1, 2).reshape(rows.shape)
    return together
