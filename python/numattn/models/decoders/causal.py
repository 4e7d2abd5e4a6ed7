"""A decoder is causal: a token attends to those before it and to itself."""

from __future__ import annotations

from ..files.settings import Settings, shown


def refuse_bidirectional(settings: Settings) -> None:
    """Raise ValueError for a decoder that was made an encoder, in which tokens see later ones."""
    wanted = {"is_causal": (True,), "use_bidirectional_attention": (False, None)}
    for name, allowed in wanted.items():
        value = settings.values.get(name, allowed[0])
        if not any(value is each for each in allowed):
            raise ValueError(
                f"{settings.path}: {name} {shown(value)} is not supported: a token attends to "
                "those before it alone"
            )
