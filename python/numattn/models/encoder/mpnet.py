"""MPNet: BERT with a bias of scores by distance, and no types of tokens (Song et al., 2020).

The bias is T5's, a number for each head and bucket of distances, and the same in all layers.
Positions are counted as RoBERTa counts them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from numattn._steps import Steps
from numattn.position import t5_bias

from ..arrays import Int64Array
from ..files.checkpoint import Checkpoint
from ..files.model_config import read_model_config
from ..ragged import Ragged
from .bert import IGNORED, Bert
from .bert_config import BertConfig
from .bert_layer import LayerNames, Workspace
from .config import read_activation

MPNET_LAYER = LayerNames(
    "attention.attn.q",
    "attention.attn.k",
    "attention.attn.v",
    "attention.attn.o",
    "attention.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
)
# Whatever relative_attention_num_buckets is, transformers tells distances apart by 32 buckets.
BUCKETS, MAX_DISTANCE = 32, 128
PAD = 1  # so, too, it counts positions past this token, whatever pad_token_id is


class MPNet(Bert):
    """An MPNet encoder. Made by `MPNet.from_folder`; all else is as for `Bert`."""

    FAMILIES: ClassVar[Mapping[str, str]] = {"mpnet": "MPNet"}
    IGNORED: ClassVar[str] = IGNORED
    LAYER: ClassVar[LayerNames] = MPNET_LAYER

    @classmethod
    def read_config(cls, path: Path) -> BertConfig:
        """Read a config.json."""
        settings, family = read_model_config(path, cls.FAMILIES)
        settings.one_of("relative_attention_num_buckets", (BUCKETS,), BUCKETS)
        settings.one_of("pad_token_id", (PAD,), PAD)
        return BertConfig.of(
            settings,
            family,
            activation=read_activation(settings, "hidden_act", "gelu"),
            type_vocab_size=0,
            position_offset=PAD + 1,
            pad_token_id=PAD,
        )

    def _read(self, checkpoint: Checkpoint) -> None:
        super()._read(checkpoint)
        self._distances = checkpoint.take(
            "encoder.relative_attention_bias.weight", (BUCKETS, self.config.num_heads)
        )

    def _embed(
        self,
        ids: Int64Array,
        types: Int64Array | None,
        sequences: Ragged,
        steps: Steps,
    ) -> Workspace:
        work = super()._embed(ids, types, sequences, steps)
        longest = int(sequences.lengths.max(initial=0))
        work.bias = t5_bias(
            self._distances, longest, longest, bidirectional=True, max_distance=MAX_DISTANCE
        )
        return work
