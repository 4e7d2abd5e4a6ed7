"""What transformers' mask functions say, as rules: the same keys as in the bools of its "sdpa"."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
masking_utils = pytest.importorskip("transformers.masking_utils")

import numattn.compat.transformers as nt  # noqa: E402
from numattn.compat.torch.operators import attend  # noqa: E402
from numattn.compat.transformers.rule_mask import rules_of  # noqa: E402

FUNCTIONS: dict[str, Any] = {
    "causal": masking_utils.causal_mask_function,
    "all": masking_utils.bidirectional_mask_function,
    "window": masking_utils.sliding_window_causal_mask_function(3),
    "window both ways": masking_utils.sliding_window_bidirectional_mask_function(2),
    "chunks": masking_utils.chunked_causal_mask_function(4, torch.tensor([0, 3])),
}
PADDINGS: dict[str, Any] = {
    "none": [[1] * 12, [1] * 12],
    "right": [[1] * 7 + [0] * 5, [1] * 12],
    "left": [[1] * 12, [0] * 3 + [1] * 9],
    "both": [[0] * 2 + [1] * 8 + [0] * 2, [1] * 12],
    "between": [[1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 1, 1], [1] * 12],
    "all": [[0] * 12, [1] * 12],
}
PLACES = [(12, 0, 0, 12), (1, 11, 0, 12), (4, 8, 0, 12), (4, 8, 3, 9), (1, 11, 6, 6), (3, 2, 0, 12)]
"""Queries, position of the first, position of the first key, keys."""


def agree(mask: Any, dense: Any) -> None:
    """Attention by the mask's rules is that by the bools: values are told apart by place."""
    queries, keys = dense.shape[2:]
    q, k = torch.zeros(2, 1, queries, 4), torch.zeros(2, 1, keys, 4)
    v = torch.eye(keys).expand(2, 1, keys, keys)
    found = attend(q, k, v, **rules_of(mask))
    seen = dense.expand(2, 1, queries, keys)
    assert torch.equal(found > 0, seen)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_rules_say_what_the_bools_say(name: str, padding: str, place: tuple[int, ...]) -> None:
    queries, first, first_key, keys = place
    arguments = {
        "batch_size": 2, "q_length": queries, "kv_length": keys, "q_offset": first,
        "kv_offset": first_key, "mask_function": FUNCTIONS[name],
        "attention_mask": torch.tensor(PADDINGS[padding], dtype=torch.bool),
    }  # fmt: skip
    dense = masking_utils.sdpa_mask(**arguments, allow_is_causal_skip=False)
    mask = nt.attention_mask(**arguments, dtype=torch.float32)
    assert mask.shape == (2, 1, queries, keys) and mask.dtype == torch.bool
    agree(mask, dense)
    assert torch.equal(mask & True, dense)  # to whoever looks


def test_packed_sequences_are_spans() -> None:
    numbers = torch.tensor([[0, 0, 0, 1, 1, 2], [0, 1, 1, 1, 1, 1]])
    positions = torch.tensor([[0, 1, 2, 0, 1, 0], [0, 0, 1, 2, 3, 4]])
    for inner in (FUNCTIONS["causal"], FUNCTIONS["window"]):
        function = masking_utils.and_masks(
            masking_utils.remap_positions_for_packed_sequence(inner, positions),
            masking_utils.packed_sequence_mask_function(numbers),
        )
        arguments = {
            "batch_size": 2, "q_length": 6, "kv_length": 6, "mask_function": function
        }  # fmt: skip
        mask = nt.attention_mask(**arguments)
        assert "key_spans" in rules_of(mask)
        agree(mask, masking_utils.sdpa_mask(**arguments, allow_is_causal_skip=False))


def test_a_first_token_that_is_padding_of_a_static_cache() -> None:
    """Keys behind those that there are: transformers pads its mask, we need not."""
    padding = torch.tensor([[0, 1, 1], [1, 1, 1]], dtype=torch.bool)
    arguments = {
        "batch_size": 2, "q_length": 3, "kv_length": 8, "attention_mask": padding,
        "q_offset": torch.tensor([0]), "mask_function": FUNCTIONS["causal"],
    }  # fmt: skip
    mask = nt.attention_mask(**arguments)
    agree(mask, masking_utils.sdpa_mask(**arguments, allow_is_causal_skip=False))


def test_what_says_nothing_is_no_rule() -> None:
    last = nt.attention_mask(2, 1, 8, q_offset=7, mask_function=FUNCTIONS["causal"])
    assert rules_of(last) == {}
    wide = masking_utils.sliding_window_causal_mask_function(100)
    assert rules_of(nt.attention_mask(2, 4, 4, mask_function=wide)) == {
        "is_causal": True, "q_offset": 0
    }  # fmt: skip


def other(batch: Any, head: Any, query: Any, key: Any) -> Any:
    return (query + key) % 2 == 0


@pytest.mark.parametrize("use_vmap", [False, True])
def test_functions_of_others_are_bools(use_vmap: bool) -> None:
    function = masking_utils.or_masks(masking_utils.causal_mask_function, other)
    arguments = {
        "batch_size": 2, "q_length": 5, "kv_length": 5, "mask_function": function,
        "use_vmap": use_vmap,
    }  # fmt: skip
    mask = nt.attention_mask(**arguments)
    assert rules_of(mask) is None
    dense = masking_utils.sdpa_mask(**arguments, allow_is_causal_skip=False)
    q = torch.zeros(2, 1, 5, 4)
    found, _ = nt.attention_forward(torch.nn.Module(), q, q, torch.eye(5).expand(2, 1, 5, 5), mask)
    assert torch.equal(found.transpose(1, 2) > 0, dense)


def test_whoever_adds_it_adds_numbers() -> None:
    mask = nt.attention_mask(1, 3, 3, mask_function=masking_utils.causal_mask_function)
    scores = torch.zeros(1, 2, 3, 3) + mask
    assert torch.equal(scores[0, 0] < -1e38, torch.ones(3, 3).triu(1).bool())
    assert torch.equal(
        torch.softmax(scores, -1)[0, 0],
        torch.ones(3, 3).tril() / torch.tensor([[1.0], [2.0], [3.0]]),
    )  # noqa: E501
    assert "is_causal" in repr(mask)
    assert mask[:, :, :, :2].shape == (1, 1, 3, 2) and mask[0, 0, 0].tolist() == [
        True,
        False,
        False,
    ]  # noqa: E501
