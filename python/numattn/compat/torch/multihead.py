"""``torch.nn.MultiheadAttention`` for inference, on top of `numattn.attention`.

The parameters are torch's own, and so are the projections; heads are attended to where these leave
them. A padding of keys and a mask over (query, key) are handed on each as it is, so that neither is
expanded by the other: what is True in torch's masks is hidden, and becomes False, or −inf.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

from numattn.compat.torch.operators import Tensor, attend, refuse_gradients, weigh

if TYPE_CHECKING:
    MultiheadAttention: Any


class Layer:
    """``torch.nn.MultiheadAttention`` computed by numattn: its arguments, parameters and state.

    For inference: a call that would need gradients is refused, and so is one that would drop
    weights (in training, with ``dropout`` beyond 0). A row that may attend nothing is 0 before the
    output projection, where PyTorch's are NaN.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._called_by_name()

    def _called_by_name(self) -> None:
        """Have torch's encoder layers call `forward`, and not compute attention past it, as they do
        where this is True."""
        self._qkv_same_embed_dim = False

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Compute what ``torch.nn.MultiheadAttention.forward`` does, without gradients.

        Parameters
        ----------
        query, key, value : tensors of shapes (L, N, E), (S, N, Ek) and (S, N, Ev)
            N first with ``batch_first``; without N, one entry.
        key_padding_mask : tensor of shape (N, S), optional
            bool, True = to be ignored, or numbers that are added to scores.
        need_weights : bool
            Also return the probabilities.
        attn_mask : tensor of shape (L, S) or (N · heads, L, S), optional
            bool, True = not allowed, or numbers that are added to scores.
        average_attn_weights : bool
            Return their mean over the heads.
        is_causal : bool
            A hint that ``attn_mask`` is the causal one.

        Returns
        -------
        output : tensor of query's shape
        weights : tensor of shape (N, L, S), or (N, heads, L, S) without averaging, or None

        Raises
        ------
        RuntimeError
            A gradient would be needed, or weights would be dropped.
        TypeError, ValueError
            As for :func:`scaled_dot_product_attention`.
        """
        import torch

        module: Any = self
        if module.training and module.dropout:
            raise RuntimeError("numattn drops no weights: call .eval() on the module first")
        if is_causal and attn_mask is None:
            raise RuntimeError("Need attn_mask if specifying the is_causal hint.")
        refuse_gradients(torch, (query, key, value, *module.parameters()))
        batched = query.ndim == 3
        q, k, v = _projected(torch, module, query, key, value)
        score = _score(torch, attn_mask, key_padding_mask, q.shape[0], module.num_heads)
        if is_causal and key_padding_mask is None and not need_weights:
            score = {"is_causal": True}
        k, v, score = _with_own_keys(torch, module, k, v, score)
        o = attend(q, k, v, layout="bshd", **score)
        output = module.out_proj(o.flatten(-2))
        if not batched:
            output = output[0]
        elif not module.batch_first:
            output = output.transpose(0, 1)
        if not need_weights:
            return output, None
        weights = weigh(q, k, layout="bshd", **score).to(query.dtype)
        weights = weights.mean(dim=1) if average_attn_weights else weights
        return output, weights if batched else weights[0]


def _projected(
    torch: Any, module: Any, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v of shape (N, S, heads, D): in one product where they are made of the same."""
    linear = torch.nn.functional.linear
    bias = module.in_proj_bias
    if module.in_proj_weight is not None and query is key is value:
        q, k, v = linear(query, module.in_proj_weight, bias).chunk(3, dim=-1)
    else:
        if module.in_proj_weight is not None:
            weights = module.in_proj_weight.chunk(3)
        else:
            weights = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
        biases = (None, None, None) if bias is None else bias.chunk(3)
        q, k, v = map(linear, (query, key, value), weights, biases)
    parts = []
    for x in (q, k, v):
        x = x.unsqueeze(0) if x.ndim == 2 else x if module.batch_first else x.transpose(0, 1)
        parts.append(x.unflatten(-1, (module.num_heads, -1)))
    return parts[0], parts[1], parts[2]


def _score(
    torch: Any, attn_mask: Tensor | None, padding: Tensor | None, batch: int, heads: int
) -> dict[str, Any]:
    """Masks as numattn has them: (N or 1, heads or 1, L or 1, S)."""
    score: dict[str, Any] = {}
    if attn_mask is not None:
        if attn_mask.ndim == 3:
            attn_mask = attn_mask.unflatten(0, (batch, heads))
        if attn_mask.dtype == torch.bool:
            score["mask"] = ~attn_mask
        else:
            score["bias"] = attn_mask
    if padding is None:
        return score
    padding = padding.reshape(-1, 1, 1, padding.shape[-1])
    if padding.dtype == torch.bool:
        if "mask" not in score:
            score["mask"] = ~padding
            return score
        zeros = torch.zeros(padding.shape)
        padding = zeros.masked_fill_(padding, -math.inf)
    score["bias"] = score["bias"] + padding if "bias" in score else padding
    return score


def _with_own_keys(
    torch: Any, module: Any, k: Tensor, v: Tensor, score: dict[str, Any]
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Keys and values with those that the module has of its own, which no mask hides."""
    own = []
    if module.bias_k is not None:
        own.append([x.view(1, 1, *k.shape[2:]) for x in (module.bias_k, module.bias_v)])
    if module.add_zero_attn:
        own.append([x.new_zeros(1, 1, *x.shape[2:]) for x in (k, v)])
    if not own:
        return k, v, score
    if "is_causal" in score:
        shape = (k.shape[1], k.shape[1])
        score = {"mask": torch.ones(shape, dtype=torch.bool).tril()}
    for more in own:
        k, v = (
            torch.cat([x, one.expand(len(x), -1, -1, -1)], dim=1)
            for x, one in zip((k, v), more, strict=True)
        )
        score = {
            name: torch.nn.functional.pad(x, (0, 1), value=name == "mask")
            for name, x in score.items()
        }
    return k, v, score


@cache
def _layer_class() -> Any:
    import torch

    words = {"__module__": "numattn.compat.torch", "__doc__": Layer.__doc__}
    return type("MultiheadAttention", (Layer, torch.nn.MultiheadAttention), words)


def convert(module: Any) -> Any:
    """Put `MultiheadAttention` in the place of each ``torch.nn.MultiheadAttention`` of a model.

    Parameters
    ----------
    module : torch.nn.Module
        Changed in place. The new layers have the very parameters, buffers and hooks of the old.

    Returns
    -------
    torch.nn.Module
        The model; a new layer where it is itself a ``torch.nn.MultiheadAttention``.

    Raises
    ------
    TypeError
        It is no module.
    """
    import torch

    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, not {type(module).__name__}")
    if type(module) is torch.nn.MultiheadAttention:
        return _converted(module)
    made: dict[int, Any] = {}  # a layer may stand in several places
    for parent in list(module.modules()):
        if isinstance(parent, torch.nn.TransformerEncoder):
            parent.use_nested_tensor = False  # which only torch's own layers take
        for name, child in list(parent._modules.items()):  # one twice is there twice
            if type(child) is torch.nn.MultiheadAttention:
                setattr(parent, name, made.setdefault(id(child), _converted(child)))
    return module


def _converted(layer: Any) -> Any:
    new = _layer_class().__new__(_layer_class())
    vars(new).update(vars(layer))
    new._called_by_name()
    return new


def __getattr__(name: str) -> Any:
    """Make the class when it is first asked for: it stands on one of torch's."""
    if name == "MultiheadAttention":
        return _layer_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
