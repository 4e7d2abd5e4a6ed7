"""The config.json of Llama, Mistral, Qwen-2, Gemma-2 and Phi-3 folders: one set of choices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from numattn.position import Rope

from ..files.activations import ACTIVATIONS, Activation
from ..files.settings import Settings

LLAMA_TYPES = ("llama", "mistral", "qwen2", "gemma2", "phi3")


@dataclass(frozen=True)
class LlamaConfig:
    """Sizes and choices of a decoder of Llama's family."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    ffn_size: int
    activation: Activation
    norm_eps: float
    rope: Rope
    windows: tuple[int | None, ...]
    """For each layer, how many keys before its own a query sees; None for all."""
    scale: float
    """Of scores."""
    score_softcap: float | None
    logit_softcap: float | None
    qkv_bias: bool
    output_bias: bool
    ffn_bias: bool
    tied: bool
    """Whether logits are products with the embeddings."""
    gemma: bool
    """Norms after attention and MLP too, weights of norms less 1, and embeddings times sqrt(E)."""
    joined: bool
    """Phi-3: one tensor for Wq, Wk and Wv, and one for the two that make the inner states."""

    @property
    def max_positions(self) -> None:
        """Return None: positions are not learned."""
        return None

    @classmethod
    def from_file(cls, path: Path) -> LlamaConfig:
        """Read a config.json.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not JSON, lacks a size, or asks for something that is not supported.
        """
        settings = Settings.from_file(path)
        family = settings.one_of("model_type", LLAMA_TYPES)
        gemma = family == "gemma2"
        width, heads = settings.size("hidden_size"), settings.size("num_attention_heads")
        kv_heads = settings.size("num_key_value_heads", heads)
        if heads % kv_heads:
            raise ValueError(f"{path}: {heads} heads do not divide among {kv_heads} key heads")
        head_size = settings.size("head_dim", width // heads)
        attention_bias = settings.flag("attention_bias", False)
        activation = "hidden_activation" if gemma else "hidden_act"
        return cls(
            vocab_size=settings.size("vocab_size"),
            hidden_size=width,
            num_layers=settings.size("num_hidden_layers"),
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_size=head_size,
            ffn_size=settings.size("intermediate_size"),
            activation=ACTIVATIONS[
                settings.one_of(activation, ACTIVATIONS, "gelu_pytorch_tanh" if gemma else "silu")
            ],
            norm_eps=settings.number("rms_norm_eps", 1e-6),
            rope=read_rope(settings, head_size),
            windows=read_windows(settings, family),
            scale=(settings.number("query_pre_attn_scalar") if gemma else head_size) ** -0.5,
            score_softcap=settings.optional_number("attn_logit_softcapping") if gemma else None,
            logit_softcap=settings.optional_number("final_logit_softcapping") if gemma else None,
            qkv_bias=attention_bias or family == "qwen2",
            output_bias=attention_bias,
            ffn_bias=settings.flag("mlp_bias", False),
            tied=settings.flag("tie_word_embeddings", gemma),
            gemma=gemma,
            joined=family == "phi3",
        )


def read_rope(settings: Settings, head_size: int) -> Rope:
    """Return the rotary positions, in whichever of its ways the file describes them."""
    for name in ("rope_parameters", "rope_scaling"):
        settings.part(name)  # which must be an object
    try:
        return Rope.from_config({**settings.values, "head_dim": head_size})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{settings.path}: {error}") from None


def read_windows(settings: Settings, family: str) -> tuple[int | None, ...]:
    """Return how many keys before its own a query of each layer sees.

    A sliding_window of W counts the query's own key, and so reaches W − 1 back. Which layers have
    it is said by layer_types; in files without that, every layer of Mistral, every other one of
    Gemma-2 from the first on, and those of Qwen-2 from max_window_layers on.
    """
    layers = settings.size("num_hidden_layers")
    size = settings.optional_size("sliding_window")
    if size is None or family == "llama":
        return (None,) * layers
    if family == "qwen2" and not settings.flag("use_sliding_window", False):
        return (None,) * layers
    kinds = settings.get("layer_types")
    if kinds is not None:
        known = {"sliding_attention": True, "full_attention": False}
        if not isinstance(kinds, list) or len(kinds) != layers or not set(kinds) <= set(known):
            raise ValueError(
                f"{settings.path}: layer_types must name one of {[*known]} for each of {layers} "
                f"layers, not {kinds!r}"
            )
        slides = [known[kind] for kind in kinds]
    elif family == "gemma2":
        slides = [layer % 2 == 0 for layer in range(layers)]
    elif family == "qwen2":
        slides = [layer >= settings.size("max_window_layers", layers) for layer in range(layers)]
    else:
        slides = [True] * layers
    return tuple(size - 1 if slide else None for slide in slides)
