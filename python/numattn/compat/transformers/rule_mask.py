"""A mask that is held as rules, and becomes a tensor where somebody looks at its numbers.

Most models hand a mask on to their layers as they got it. Those that do not (they cut it, join it
with another) have a tensor of bools as soon as they do, with all that it says. Some have layers
that know nothing of attention implementations and add a mask to their scores: they add 0, and the
least number for what is hidden.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from numattn.compat.torch.operators import Tensor


def rules_of(mask: Tensor) -> dict[str, Any] | None:
    """What a mask says, as arguments of `numattn.compat.torch.operators.attend`; None where it is
    a plain tensor, or cannot be told so."""
    rules: dict[str, Any] | None = getattr(mask, "_numattn_rules", None)
    return rules


def rule_mask(
    shape: tuple[int, ...], rules: dict[str, Any] | None, dense: Callable[[], Tensor]
) -> Tensor:
    """A mask of that shape; ``dense`` makes the bools of it when they are asked for, once."""
    mask = _kind()(shape)
    mask._numattn_rules = rules
    mask._numattn_dense = cache(dense)
    return mask


@cache
def _kind() -> Any:
    """The class of such masks: a tensor without memory, whose first use makes another."""
    import torch
    from torch.utils._pytree import tree_map_only

    additions = (torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor)

    def make(kind: Any, shape: tuple[int, ...]) -> Tensor:
        return torch.Tensor._make_wrapper_subclass(kind, shape, dtype=torch.bool)

    def use(kind: Any, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        numbers = [x for x in arguments if torch.is_tensor(x) and x.dtype.is_floating_point]

        def plain(mask: Tensor) -> Tensor:
            bools = mask._numattn_dense()
            if function not in additions or not numbers:
                return bools
            dtype = numbers[0].dtype
            return torch.zeros(bools.shape, dtype=dtype).masked_fill_(
                ~bools, torch.finfo(dtype).min
            )

        arguments, options = tree_map_only(kind, plain, (arguments, options or {}))
        return function(*arguments, **options)

    def say(mask: Tensor) -> str:
        return f"RuleMask(shape={tuple(mask.shape)}, {mask._numattn_rules})"

    words = {
        "__new__": staticmethod(make), "__torch_dispatch__": classmethod(use), "__repr__": say,
        "__module__": __name__, "__doc__": "A mask that is held as rules.",
    }  # fmt: skip
    return type("RuleMask", (torch.Tensor,), words)
