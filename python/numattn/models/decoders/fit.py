"""The sizes of a decoder, and whether a cache has them."""

from __future__ import annotations

from typing import Protocol

from numattn.cache import Cache, KVCache


class DecoderConfig(Protocol):
    """What of a configuration every decoder has."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def num_layers(self) -> int: ...
    @property
    def num_kv_heads(self) -> int: ...
    @property
    def head_size(self) -> int: ...
    @property
    def windows(self) -> tuple[int | None, ...]:
        """For each layer, how many keys before its own a query sees; None for all."""

    @property
    def max_positions(self) -> int | None:
        """How many positions there are, if these are learned."""


def check_fit(cache: Cache, sizes: DecoderConfig) -> None:
    """Raise ValueError if a cache is not made for a model of those sizes."""
    names = ("layers", "kv_heads", "head_dim", "value_dim")
    wanted = (sizes.num_layers, sizes.num_kv_heads, sizes.head_size, sizes.head_size)
    for name, size in zip(names, wanted, strict=True):
        if getattr(cache, name) != size:
            raise ValueError(f"the cache has {name} {getattr(cache, name)}, and the model {size}")
    if not isinstance(cache, KVCache):
        return
    for layer, (kept, seen) in enumerate(zip(cache.windows, sizes.windows, strict=True)):
        if kept is not None and (seen is None or seen > kept):
            raise ValueError(
                f"layer {layer} of the cache keeps a window of {kept} keys, and the model looks "
                f"back {'at all' if seen is None else seen}"
            )
