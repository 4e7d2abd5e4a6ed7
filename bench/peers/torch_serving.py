"""PyTorch on the rows of a service: padded SDPA, jagged tensors, transformers' Llama."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cases import Operands
from contestant import Candidate, Recipe
from serving import GenerationCase, IntegerGenerationCase, RaggedCase, llama_folder


def quantised(torch: Any, model: Any) -> Any:
    """The model with its linear layers quantised: weights int8 by row, x uint8 by one scale."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it will move to another package
        settings = {torch.nn.Linear: torch.ao.quantization.per_channel_dynamic_qconfig}
        return torch.ao.quantization.quantize_dynamic(model, settings)


def ragged_recipes(torch: Any, tensor: Any, case: RaggedCase, operands: Operands) -> list[Recipe]:
    return [
        partial(padded, torch, tensor, case, operands),
        partial(jagged, torch, tensor, case, operands),
    ]


def padded(torch: Any, tensor: Any, case: RaggedCase, operands: Operands) -> Candidate:
    """(B, H, longest, D) with a mask of what is real: what one does without packed sequences."""
    lengths, starts = case.lengths, case.starts
    longest = int(lengths.max())

    def pad(packed: NDArray[Any]) -> Any:
        shape = (case.sequences, longest, case.heads, case.head_dim)
        full = np.zeros(shape, packed.dtype)
        for i, length in enumerate(lengths):
            full[i, :length] = packed[starts[i] : starts[i + 1]]
        return tensor(np.ascontiguousarray(full.swapaxes(1, 2)))

    query, key, value = (pad(operands[name]) for name in ("query", "key", "value"))
    mask = tensor((np.arange(longest) < lengths[:, np.newaxis])[:, np.newaxis, np.newaxis])
    call = partial(
        torch.nn.functional.scaled_dot_product_attention, query, key, value, attn_mask=mask
    )

    def fetch(result: Any) -> NDArray[np.float32]:
        rows = result.float().numpy().swapaxes(1, 2)
        return np.concatenate([rows[i, :length] for i, length in enumerate(lengths)])

    return Candidate("SDPA, padded with a mask", call, fetch)


def jagged(torch: Any, tensor: Any, case: RaggedCase, operands: Operands) -> Candidate:
    """Nested tensors of layout jagged."""
    offsets = tensor(case.starts.astype(np.int64))

    def nest(packed: NDArray[Any]) -> Any:
        return torch.nested.nested_tensor_from_jagged(tensor(packed), offsets).transpose(1, 2)

    query, key, value = (nest(operands[name]) for name in ("query", "key", "value"))
    call = partial(torch.nn.functional.scaled_dot_product_attention, query, key, value)

    def fetch(result: Any) -> NDArray[np.float32]:
        return np.asarray(result.transpose(1, 2).values().float().numpy())

    return Candidate("SDPA, jagged tensors", call, fetch)


def generation_recipes(
    torch: Any, tensor: Any, case: GenerationCase, dtype: str, operands: Operands
) -> list[Recipe]:
    return [
        partial(generation, torch, tensor, case, dtype, operands, static=static)
        for static in (False, True)
    ]


def generation(
    torch: Any, tensor: Any, case: GenerationCase, dtype: str, operands: Operands, *, static: bool
) -> Candidate:
    """transformers' Llama with its growing cache, or with the one of fixed size."""
    import transformers
    from transformers.cache_utils import DynamicCache, StaticCache

    logging: Any = transformers.utils.logging
    logging.disable_progress_bar()
    model: Any = transformers.LlamaForCausalLM.from_pretrained(
        llama_folder(case),
        attn_implementation="sdpa",
        dtype=torch.bfloat16 if dtype == "bf16" else torch.float32,
        local_files_only=True,
    ).eval()
    integers = isinstance(case, IntegerGenerationCase)
    if integers:
        model = quantised(torch, model)
    # transformers' annotations know no tensors made in this way.
    cache: Any
    if static:
        cache = StaticCache(config=model.config, max_cache_len=case.context + 1)
    else:
        cache = DynamicCache(config=model.config)
    for layer in range(case.layers):
        cache.update(tensor(operands["keys"][layer]), tensor(operands["values"][layer]), layer)
    token = torch.from_numpy(operands["token"])
    position = torch.tensor([[case.context]])

    def step() -> Any:
        result = model(token, past_key_values=cache, position_ids=position, use_cache=True)
        forget(cache, case.context, static)
        return result.logits

    def forget(held: Any, length: int, fixed: bool) -> None:
        if not fixed:
            held.crop(-1)
            return
        for one in held.layers:
            one.cumulative_length.fill_(length)

    how = f"LlamaForCausalLM, sdpa, {'static' if static else 'dynamic'} cache"
    if integers:
        how += ", quantize_dynamic"
    return Candidate(how, step, lambda logits: np.asarray(logits.float().numpy()))
