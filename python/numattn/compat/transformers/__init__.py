"""numattn as an attention implementation of Hugging Face's transformers.

    >>> import numattn.compat.transformers
    >>> numattn.compat.transformers.register()                                      # doctest: +SKIP
    >>> model = AutoModel.from_pretrained(folder, attn_implementation="numattn")    # doctest: +SKIP

Every model that takes its attention from transformers' AttentionInterface then computes it by
numattn: on the CPU, for inference.
"""

from __future__ import annotations

from numattn.compat.transformers.forward import attention_forward
from numattn.compat.transformers.masks import attention_mask

__all__ = ["NAME", "attention_forward", "attention_mask", "register"]

NAME = "numattn"


def register(name: str = NAME) -> None:
    """Make numattn known to transformers as an attention implementation.

    Parameters
    ----------
    name : str
        By which models ask for it: ``attn_implementation=name``.

    Raises
    ------
    ImportError
        transformers or torch is not installed, or transformers is older than 4.53.
    """
    try:
        from transformers import AttentionInterface, AttentionMaskInterface
    except ImportError as error:
        raise ImportError(
            "numattn.compat.transformers needs torch and transformers ≥ 4.53: "
            "pip install torch transformers"
        ) from error
    from numattn.compat.torch.operators import registered

    registered()
    AttentionInterface.register(name, attention_forward)
    AttentionMaskInterface.register(name, attention_mask)
