"""Rows of a service: ragged batches, keys in pages or as integers, a token of a language model."""

from __future__ import annotations

import atexit
import json
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cases import ITEM_BYTES, AttentionCase, CaseFacts, Operands, Source, aligned_copy

SERVING = "serving"


@dataclass(frozen=True)
class RaggedCase(CaseFacts):
    """Self-attention within each of several sequences whose lengths differ."""

    name: str
    sequences: int
    heads: int
    head_dim: int
    shortest: int
    longest: int
    unit: str = "GFLOP/s"
    dtypes: tuple[str, ...] = ("f32", "bf16")
    group: str = SERVING

    @property
    def lengths(self) -> NDArray[np.int64]:
        generator = np.random.default_rng(20)
        return generator.integers(self.shortest, self.longest + 1, self.sequences)

    @property
    def starts(self) -> NDArray[np.int32]:
        """Prefix sums of the lengths, from 0 to their total."""
        return np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int32)

    def work(self, dtype: str) -> float:
        """4·H·D per pair of tokens of one sequence: padding is nobody's work."""
        return 4.0 * self.heads * self.head_dim * float(np.sum(self.lengths**2))

    def operands(self, dtype: str) -> Operands:
        source = Source(dtype)
        shape = (int(self.lengths.sum()), self.heads, self.head_dim)
        return {name: source.normal(*shape) for name in ("query", "key", "value")}


@dataclass(frozen=True)
class HeldCase(AttentionCase):
    """A decoding step whose keys and values we hold in pages, or as integers.

    Everybody else has the same numbers in one piece and in the row's dtype, and so have we as the
    contestant "in one piece".
    """

    page: int = 0  # tokens; 0 for no pages
    heads_first: bool = False  # whether a page has its heads outside of its tokens in memory
    integers: bool = False
    group: str = SERVING

    also_in_one_piece: ClassVar[bool] = True

    def work(self, dtype: str) -> float:
        """Bytes of keys and values in one piece and in the row's dtype: a figure of speed."""
        return 2.0 * float(np.prod(self.key_shape)) * ITEM_BYTES[dtype]

    def operands(self, dtype: str) -> Operands:
        import numattn

        operands = super().operands(dtype)
        for name in ("key", "value"):
            if self.integers:
                integers, scale = numattn.quantize(operands[name])
                operands |= {f"{name}_integers": integers, f"{name}_scale": scale}
                operands[name] = aligned_copy(integers * scale[..., np.newaxis])
            if self.page:
                operands[f"{name}_pages"] = self.in_pages(operands[name])
        return operands

    @property
    def block_table(self) -> NDArray[np.int64]:
        """All pages in random order, (B, pages of an entry)."""
        columns = self.keys // self.page
        order = np.random.default_rng(20).permutation(self.batch * columns)
        return order.reshape(self.batch, columns)

    def in_pages(self, tokens: NDArray[Any]) -> NDArray[Any]:
        """(B, H, S, D) as pages (P, page, H, D) in the order of the table."""
        pages = tokens.swapaxes(1, 2).reshape(-1, self.page, self.key_heads, self.head_dim)
        pool = np.empty_like(pages)
        pool[self.block_table.ravel()] = pages
        if self.heads_first:
            return aligned_copy(pool.swapaxes(1, 2)).swapaxes(1, 2)
        return aligned_copy(pool)


@dataclass(frozen=True)
class GenerationCase(CaseFacts):
    """One token of a random Llama after `context` others, whose keys and values are given."""

    name: str
    context: int
    layers: int = 30
    width: int = 576
    heads: int = 9
    kv_heads: int = 3
    inner: int = 1536
    vocabulary: int = 49152
    unit: str = "ms"
    dtypes: tuple[str, ...] = ("f32", "bf16")
    group: str = SERVING

    # Thirty layers in bf16 leave 3e-2 of the logits (PyTorch 5e-2).
    wrong_beyond: ClassVar[dict[str, float]] = {"f32": 1e-3, "bf16": 2e-1}

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    def work(self, dtype: str) -> float:
        return 1.0

    def operands(self, dtype: str) -> Operands:
        source = Source(dtype)
        shape = (self.layers, 1, self.kv_heads, self.context, self.head_dim)
        return {
            "token": np.array([[1234]]),
            "keys": source.normal(*shape),
            "values": source.normal(*shape),
        }

    def config(self) -> dict[str, Any]:
        """What the model's config.json says."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocabulary,
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "intermediate_size": self.inner,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
        }

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The model's tensors."""
        key_rows = self.kv_heads * self.head_dim
        shapes: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (self.vocabulary, self.width),
            "model.norm.weight": (self.width,),
        }
        for layer in range(self.layers):
            name = f"model.layers.{layer}"
            shapes |= {
                f"{name}.input_layernorm.weight": (self.width,),
                f"{name}.post_attention_layernorm.weight": (self.width,),
                f"{name}.self_attn.q_proj.weight": (self.width, self.width),
                f"{name}.self_attn.k_proj.weight": (key_rows, self.width),
                f"{name}.self_attn.v_proj.weight": (key_rows, self.width),
                f"{name}.self_attn.o_proj.weight": (self.width, self.width),
                f"{name}.mlp.gate_proj.weight": (self.inner, self.width),
                f"{name}.mlp.up_proj.weight": (self.inner, self.width),
                f"{name}.mlp.down_proj.weight": (self.width, self.inner),
            }
        return shapes

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """Random weights that keep a vector's size; norms of 1."""
        generator = np.random.default_rng(20)
        tensors = {}
        for name, shape in self.shapes().items():
            if len(shape) == 1:
                tensors[name] = np.ones(shape, np.float32)
                continue
            tensors[name] = generator.standard_normal(shape, np.float32)
            tensors[name] *= np.float32(shape[1] ** -0.5)
        return tensors


@dataclass(frozen=True)
class IntegerGenerationCase(GenerationCase):
    """The same where everybody may keep the weights as int8."""

    dtypes: tuple[str, ...] = ("f32",)

    # Random weights have no redundancy: int8 in 210 layers leaves some 1e-1.
    wrong_beyond: ClassVar[dict[str, float]] = {"f32": 3e-1}


@cache
def llama_folder(case: GenerationCase) -> Path:
    """A Hugging Face folder of the model, which lasts as long as the process."""
    from safetensors.numpy import save_file

    folder = tempfile.TemporaryDirectory(prefix="numattn-bench-")
    atexit.register(folder.cleanup)
    path = Path(folder.name)
    (path / "config.json").write_text(json.dumps(case.config()))
    save_file(case.tensors(), path / "model.safetensors", metadata={"format": "pt"})
    return path


ServingCase = RaggedCase | HeldCase | GenerationCase


def serving() -> list[ServingCase]:
    """The rows of a service, in the order in which they are printed."""
    step: dict[str, Any] = {"heads": 32, "kv_heads": 8, "queries": 1, "keys": 4096, "head_dim": 128}
    return [
        RaggedCase("ragged 32 sequences of 8-512 H12 D64", 32, 12, 64, 8, 512),
        *(
            HeldCase(
                f"decode B{batch} S1x4096 H32/8 D128 {how}",
                batch=batch, **step, page=16, heads_first=heads_first, unit="GB/s",
                dtypes=("f32", "bf16"),
            )
            for batch in (1, 8)
            for how, heads_first in (("PagedKVCache", True), ("pages of 16", False))
        ),
        HeldCase(
            "decode B1 S1x16384 H32/8 D128 int8",
            batch=1, **(step | {"keys": 16384}), integers=True, unit="GB/s", dtypes=("f32",),
        ),
        GenerationCase("Llama 30 layers E576 H9/3, a token after 2048", 2048),
        IntegerGenerationCase("Llama 30 layers E576 H9/3, a token after 2048, int8 weights", 2048),
    ]  # fmt: skip
