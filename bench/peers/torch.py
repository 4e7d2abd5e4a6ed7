"""PyTorch: SDPA, compiled flex attention, Linear, MultiheadAttention, transformers' BertModel."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cases import (
    AttentionCase,
    Case,
    ConcurrentCase,
    IntegerCase,
    IntegerEncoderCase,
    LayerCase,
    LinearCase,
    Operands,
    RaggedEncoderCase,
)
from concurrent_texts import from_threads
from contestant import Candidate, Recipe, Unsupported
from oracle import model_folder
from peers.torch_serving import generation_recipes, quantised, ragged_recipes
from serving import GenerationCase, RaggedCase, ServingCase


def single(result: Any) -> NDArray[np.float32]:
    return np.asarray(result.float().numpy())


class Torch:
    """Eager PyTorch in inference mode; operands are shared with NumPy, not copied."""

    name = "PyTorch"

    def __init__(self, threads: int) -> None:
        import torch

        self.torch: Any = torch
        self.version = str(torch.__version__)
        torch.set_num_threads(threads)
        # Entered once and for all: entering it in every call would cost a microsecond of each.
        self.inference = torch.inference_mode()
        self.inference.__enter__()

    def recipes(self, case: Case | ServingCase, dtype: str, operands: Operands) -> list[Recipe]:
        if isinstance(case, RaggedCase):
            return ragged_recipes(self.torch, self.tensor, case, operands)
        if isinstance(case, GenerationCase):
            return generation_recipes(self.torch, self.tensor, case, dtype, operands)
        if isinstance(case, AttentionCase):
            ways: list[Recipe] = [partial(self.attention, case, operands)]
            if case.window is not None:
                ways.append(partial(self.flex_attention, case, operands))
            return ways
        if isinstance(case, IntegerCase):
            return [partial(self.integer_linear, case, operands)]
        if isinstance(case, LinearCase):
            return [partial(self.linear, case, operands)]
        if isinstance(case, LayerCase):
            return [partial(self.layer, case, operands)]
        if isinstance(case, IntegerEncoderCase):
            return [partial(self.integer_encoder, operands)]
        if isinstance(case, RaggedEncoderCase):
            return [partial(self.ragged_encoder, case, dtype, operands)]
        if isinstance(case, ConcurrentCase):
            return [partial(self.concurrent, case, dtype, operands)]
        return [partial(self.encoder, dtype, operands)]

    def tensor(self, array: NDArray[Any]) -> Any:
        """A tensor over the array's own memory."""
        if array.dtype.name == "bfloat16":
            return self.torch.from_numpy(array.view(np.int16)).view(self.torch.bfloat16)
        return self.torch.from_numpy(array)

    def attention(self, case: AttentionCase, operands: Operands) -> Candidate:
        tensors = {name: self.tensor(array) for name, array in operands.items()}
        keywords: dict[str, Any] = {"is_causal": case.causal}
        if case.dense_mask:
            keywords["attn_mask"] = tensors["mask"]
        if case.window is not None:
            keywords["attn_mask"] = self.tensor(window_mask(case))
        if case.key_heads != case.heads:
            keywords["enable_gqa"] = True
        call = partial(
            self.torch.nn.functional.scaled_dot_product_attention,
            tensors["query"],
            tensors["key"],
            tensors["value"],
            **keywords,
        )
        how = "SDPA with a mask" if "attn_mask" in keywords else "SDPA"
        return Candidate(how, call, single)

    def flex_attention(self, case: AttentionCase, operands: Operands) -> Candidate:
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        assert case.window is not None
        left, right = case.window

        def visible(batch: Any, head: Any, query: Any, key: Any) -> Any:
            return (query - key <= left) & (key - query <= right)

        block_mask = create_block_mask(visible, None, None, case.queries, case.keys, device="cpu")
        compiled = self.torch.compile(flex_attention, dynamic=False)
        query, key, value = (self.tensor(operands[name]) for name in ("query", "key", "value"))
        call = partial(compiled, query, key, value, block_mask=block_mask)
        return Candidate("flex_attention, compiled", call, single)

    def linear(self, case: LinearCase, operands: Operands) -> Candidate:
        weight, x = (self.tensor(operands[name]) for name in ("weight", "x"))
        bias = None if case.plain else self.tensor(operands["bias"])
        functional = self.torch.nn.functional

        def plain() -> Any:
            return functional.linear(x, weight, bias)

        def with_gelu() -> Any:
            return functional.gelu(functional.linear(x, weight, bias))

        if case.activation not in (None, "gelu"):
            raise Unsupported(f"no adapter for activation {case.activation}")
        return Candidate("linear", with_gelu if case.activation else plain, single)

    def integer_linear(self, case: IntegerCase, operands: Operands) -> Candidate:
        """A dynamically quantised layer: weights int8 by row, x uint8 by one scale."""
        torch = self.torch
        layer = torch.nn.Linear(case.inputs, case.outputs)
        layer.weight.copy_(self.tensor(operands["weight"]))
        layer.bias.copy_(self.tensor(operands["bias"]))
        parts = [layer, torch.nn.GELU()] if case.activation == "gelu" else [layer]
        model = quantised(torch, torch.nn.Sequential(*parts))
        call = partial(model, self.tensor(operands["x"]))
        return Candidate("quantize_dynamic, by row", call, single)

    def layer(self, case: LayerCase, operands: Operands) -> Candidate:
        x = self.tensor(operands["x"])
        layer = self.torch.nn.MultiheadAttention(
            case.embed, case.heads, batch_first=True, dtype=x.dtype
        ).eval()
        state = {name: self.tensor(a) for name, a in operands.items() if name != "x"}
        layer.load_state_dict(state)
        call = partial(layer, x, x, x, need_weights=False)
        return Candidate("nn.MultiheadAttention", call, lambda result: single(result[0]))

    def model(self, dtype: str) -> Any:
        model = bert_model()
        return model.to(self.torch.bfloat16) if dtype == "bf16" else model

    def encoder(self, dtype: str, operands: Operands) -> Candidate:
        ids = self.torch.from_numpy(operands["token_ids"])
        call = partial(self.model(dtype), input_ids=ids)
        return Candidate("BertModel, sdpa", call, lambda r: single(r.last_hidden_state))

    def integer_encoder(self, operands: Operands) -> Candidate:
        ids = self.torch.from_numpy(operands["token_ids"])
        model = quantised(self.torch, self.model("f32"))
        call = partial(model, input_ids=ids)
        how = "BertModel, sdpa, quantize_dynamic, by row"
        return Candidate(how, call, lambda r: single(r.last_hidden_state))

    def ragged_encoder(self, case: RaggedEncoderCase, dtype: str, operands: Operands) -> Candidate:
        """Padded to the longest, as transformers and sentence-transformers do."""
        longest = int(case.lengths.max())
        ids = self.torch.from_numpy(np.ascontiguousarray(operands["token_ids"][:, :longest]))
        real = case.real[:, :longest]
        mask = self.torch.from_numpy(real.astype(np.int64))
        call = partial(self.model(dtype), input_ids=ids, attention_mask=mask)

        def fetch(result: Any) -> NDArray[np.float32]:
            return single(result.last_hidden_state)[real]

        return Candidate("BertModel, sdpa, padded", call, fetch)

    def concurrent(self, case: ConcurrentCase, dtype: str, operands: Operands) -> Candidate:
        torch, model = self.torch, self.model(dtype)

        def hidden(ids: NDArray[Any]) -> Any:
            with torch.inference_mode():  # each thread has its own
                return model(input_ids=torch.from_numpy(ids)).last_hidden_state

        run = from_threads(case, operands["token_ids"], hidden)
        return Candidate("BertModel, sdpa", run, lambda texts: single(torch.cat(texts)))


def window_mask(case: AttentionCase) -> NDArray[np.bool_]:
    """The (Sq, Sk) mask of a window, for operators that know no window."""
    assert case.window is not None
    left, right = case.window
    distance = np.arange(case.queries)[:, None] - np.arange(case.keys)[None, :]
    return (distance <= left) & (distance >= -right)


def bert_model() -> Any:
    """transformers' BertModel of the MiniLM folder, without the pooler that nobody times."""
    import transformers

    logging: Any = transformers.utils.logging
    logging.set_verbosity_error()  # it would report the unused pooler, a dozen lines each time
    logging.disable_progress_bar()
    model: Any = transformers.BertModel.from_pretrained(
        model_folder(), attn_implementation="sdpa", add_pooling_layer=False, local_files_only=True
    )
    return model.eval()
