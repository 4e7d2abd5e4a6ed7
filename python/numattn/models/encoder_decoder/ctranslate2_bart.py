"""Text to text from folders of CTranslate2's: TransformerSpec, as of Marian, BART, M2M-100.

Where the decoder's first embedding is zero, as in Marian, a token is put after those of the folder
that has it: texts begin with it, and it is never what comes next.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..files.activations import Activation
from ..files.ctranslate2_file import Ctranslate2File
from ..files.ctranslate2_tensors import WITHOUT_EFFECT, Ctranslate2Tensors
from .bart import STACKS, Bart, BartConfig
from .ctranslate2_names import HEAD, TABLES, place_of
from .ctranslate2_sizes import read_sizes
from .ctranslate2_vocabularies import read_vocabularies
from .forms import NORM_EPS
from .generation_config import GenerationConfig
from .text_tokens import TextTokens
from .token_rules import NEVER, TokenRules

ACTIVATIONS: tuple[Activation, ...] = ("relu", "gelu_tanh", "silu", "gelu")  # by their numbers
MOST = 256  # tokens of a text, as in CTranslate2
# How several tables of a source would be joined.
IGNORED = WITHOUT_EFFECT + r"|encoder/embeddings_merge"


class BartTensors(Ctranslate2Tensors):
    """A folder's variables, with a token of zeros after the others where texts begin so."""

    def __init__(self, file: Ctranslate2File) -> None:
        super().__init__(file, place_of)
        self.zero_start = bool(self.number("decoder/start_from_zero_embedding", 0))
        self.shared = len({file.own_name(f"{table}/weight") for table in TABLES.values()}) == 1

    def has(self, name: str, *, from_root: bool = False) -> bool:
        """Return whether there is a tensor of that name, which is not another one's."""
        if name == "shared.weight":
            return self.shared
        if name == "final_logits_bias" and self.zero_start:
            return True
        own = self.file.own_name(self.place_of(name).name)
        if name == "lm_head.weight":
            return own != self.file.own_name(f"{TABLES['decoder']}/weight")
        if name.endswith("embed_tokens.weight") and self.shared:
            return False
        return own in self.file.variables

    def take(
        self,
        name: str,
        shape: Sequence[int],
        *,
        from_root: bool = False,
        dtype: DTypeLike = np.float32,
    ) -> NDArray[Any]:
        """Return a tensor, of exactly that shape, as float32 or `dtype`."""
        stored = "decoder.embed_tokens.weight" if name == "shared.weight" else name
        if name == "final_logits_bias":
            return self._bias(shape[1])[np.newaxis]
        longer = self.zero_start and stored in ("decoder.embed_tokens.weight", "lm_head.weight")
        if not longer:
            return super().take(stored, shape, dtype=dtype)
        rows = super().take(stored, (shape[0] - 1, *shape[1:]), dtype=dtype)
        return np.concatenate([rows, np.zeros_like(rows[:1])])

    def _bias(self, size: int) -> NDArray[np.float32]:
        """Return what is added to logits."""
        bias, count = np.zeros(size, dtype=np.float32), size - self.zero_start
        if f"{HEAD}/bias" in self.file.variables:
            bias[:count] = super().take("final_logits_bias", (count,))
        bias[count:] = NEVER
        return bias


def load_bart(file: Ctranslate2File, *, dtype: DTypeLike | None = None) -> Bart:
    """Load a folder of CTranslate2's; errors are those of `Bart.from_folder`."""
    file.check_spec("TransformerSpec")
    tensors = BartTensors(file)
    config = read_config(tensors)
    target_size = config.vocab_size - tensors.zero_start
    vocabularies = read_vocabularies(file, config.source_vocab_size, target_size)
    start = target_size if tensors.zero_start else vocabularies.start
    generation = GenerationConfig(
        start=start,
        rules=TokenRules(ends=(vocabularies.end,), min_new_tokens=1, renormalize=True),
        beams=2,
        length_penalty=1.0,
        early_stopping=True,
        max_length=None,
        max_new_tokens=MOST,
    )
    model = Bart(config, tensors, generation, TextTokens(file.folder, vocabularies), dtype)
    tensors.finish(IGNORED)
    return model


def read_config(tensors: BartTensors) -> BartConfig:
    """Return sizes and choices by the variables' shapes, and by those that are one number.

    Raises
    ------
    ValueError
        If one asks for what is not supported.
    """
    file, names = tensors.file, tensors.file.names
    for name in ("encoder/multi_query_attention", "decoder/alibi"):
        tensors.only(name, 0, 0)
    positions = "decoder/position_encodings/encodings"
    if positions not in names:
        raise ValueError(
            f"{file.path} has no variable {positions}: positions that are not in a table are not "
            "supported"
        )
    width = tensors.size(f"{TABLES['decoder']}/weight", 1)
    encoder, decoder = (read_sizes(tensors, stack, width) for stack in STACKS)
    scales = (tensors.embedding_scale(stack, width) for stack in STACKS)
    norms = (tensors.number(f"{stack}/pre_norm", 1) for stack in STACKS)
    return BartConfig(
        vocab_size=tensors.size(f"{TABLES['decoder']}/weight", 0) + tensors.zero_start,
        source_vocab_size=tensors.size(f"{TABLES['encoder']}/weight", 0),
        hidden_size=width,
        encoder_layers=encoder.layers,
        decoder_layers=decoder.layers,
        heads=(encoder.heads, decoder.heads),
        ffn_sizes=(encoder.ffn_size, decoder.ffn_size),
        activation=read_activation(tensors),
        max_positions=tensors.size(positions, 0),
        embedding_scale=shared(tensors, "scale_embeddings", scales),
        norm_first=bool(shared(tensors, "pre_norm", norms)),
        embedding_norms="encoder/layernorm_embedding/gamma" in names,
        learned_positions=True,
        one_table=tensors.shared,
        norm_eps=file.config.number("layer_norm_epsilon", NORM_EPS),
    )


def shared(tensors: Ctranslate2Tensors, name: str, values: Iterable[float]) -> float:
    """Return a choice of the encoder and the decoder, or raise ValueError if it is not the same."""
    encoder, decoder = values
    if encoder != decoder:
        raise ValueError(
            f"{tensors.file.path}: {name} of the encoder, {encoder}, and of the decoder, "
            f"{decoder}, must be the same"
        )
    return encoder


def read_activation(tensors: Ctranslate2Tensors) -> Activation:
    """Return what MLPs are activated by."""
    values = (tensors.number(f"{stack}/activation") for stack in STACKS)
    number = int(shared(tensors, "activation", values))
    if not 0 <= number < len(ACTIVATIONS):
        raise ValueError(
            f"{tensors.file.path}: activation {number} is not supported; supported are 0 … "
            f"{len(ACTIVATIONS) - 1}: {', '.join(ACTIVATIONS)}"
        )
    return ACTIVATIONS[number]
