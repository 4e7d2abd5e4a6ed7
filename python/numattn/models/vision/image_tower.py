"""The half of a CLIP or SigLIP that reads images.

CLIP      x = norm([CLS], patches);  layers;  vector = norm(x of [CLS])·Wᵀ
SigLIP    x = patches;  layers;  x = norm(x);  vector = what a probe of its own gathers from x:
          a = attention(probe, x);  vector = a + feed-forward(norm(a))
"""

from __future__ import annotations

import numpy as np

from numattn import Linear, attention_varlen
from numattn._aligned import empty
from numattn._steps import Steps

from ..arrays import Float32Array
from ..files.checkpoint import Checkpoint
from ..files.storage import number_dtype
from ..ragged import Ragged
from .clip_config import ClipConfig, layer_names
from .patches import PatchEmbedding
from .positions import bilinear_weights, plain_weights
from .tower import Tower
from .tower_layer import FeedForward, Workspace, read_linear, read_norm

STEM = "vision_model"


class ImageTower:
    """Numbers of images → hidden states, and vectors that are not yet scaled, if `pooled`."""

    def __init__(
        self, checkpoint: Checkpoint, config: ClipConfig, storage: str,
        *, pooled: bool = True,
    ) -> None:  # fmt: skip
        width, cut = config.vision.hidden_size, config.patches
        clip = not config.is_siglip
        prefix = np.zeros((0, width), np.float32)
        if clip:
            prefix = checkpoint.take(f"{STEM}.embeddings.class_embedding", (width,))[np.newaxis]
        stem = f"{STEM}.embeddings.patch_embedding"
        self.patches = PatchEmbedding(
            cut,
            read_patch_weight(checkpoint, f"{stem}.weight", config),
            None if clip else checkpoint.take(f"{stem}.bias", (width,)),
            checkpoint.take(
                f"{STEM}.embeddings.position_embedding.weight", (len(prefix) + cut.patches, width)
            ),
            prefix,
            np.zeros((0, width), np.float32),
            bilinear_weights if config.of_any_size else plain_weights,
        )
        self.tower = Tower(checkpoint, layer_names(STEM), config.vision, storage)
        self._first_norm = None
        if clip:
            # The name is misspelled in every file.
            self._first_norm = read_norm(checkpoint, f"{STEM}.pre_layrnorm", config.vision)
        self._last_norm = read_norm(checkpoint, f"{STEM}.post_layernorm", config.vision)
        self._is_siglip = not clip
        self._probe = Probe(checkpoint, config, storage) if pooled and not clip else None
        self._projection = None
        if pooled and clip:
            shape = (config.vector_size, width)
            self._projection = read_linear(
                checkpoint, ["visual_projection"], shape, storage, bias=False
            )

    def embed(self, numbers: Float32Array, num_threads: int | None) -> Workspace:
        """Return the activations of a call, with x holding what the first layer reads."""
        work = self.tower.workspace(self.patches.tokens(numbers.shape).count)
        self.patches(numbers, work.x, num_threads)
        if self._first_norm is not None:
            self._first_norm(work.x, num_threads, out=work.x)
        return work

    def states(self, numbers: Float32Array, num_threads: int | None) -> Float32Array:
        """Return the hidden states (N, S, E) of images (N, C, H, W); SigLIP's are normalised."""
        work = self.embed(numbers, num_threads)
        self.tower.run(work, self.patches.tokens(numbers.shape), num_threads)
        if self._is_siglip:
            self._last_norm(work.x, num_threads, out=work.x)
        rows, columns = self.patches.grid(numbers.shape)
        tokens = self.patches.num_special + rows * columns
        return work.x.reshape(len(numbers), tokens, work.x.shape[1])

    def vectors(self, numbers: Float32Array, num_threads: int | None) -> Float32Array:
        """Return the vectors (N, P) of images (N, C, H, W)."""
        states = self.states(numbers, num_threads)
        if self._probe is not None:
            return self._probe(states, num_threads)
        assert self._projection is not None
        first = self._last_norm(np.ascontiguousarray(states[:, 0]), num_threads)
        projected: Float32Array = self._projection(first, num_threads=num_threads)
        return projected


def read_patch_weight(checkpoint: Checkpoint, name: str, config: ClipConfig) -> Float32Array:
    """Return what patches are multiplied by (E, C, height, width).

    SigLIP 2 has it as a matrix, over the colours of each pixel.
    """
    width, cut = config.vision.hidden_size, config.patches
    if not config.of_any_size:
        return checkpoint.take(name, (width, cut.channels, *cut.patch))
    matrix = checkpoint.take(name, (width, cut.patch[0] * cut.patch[1] * cut.channels))
    pixels = matrix.reshape(width, *cut.patch, cut.channels)
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))


class Probe:
    """SigLIP's head: one query of its own for all images, and a feed-forward part."""

    def __init__(self, checkpoint: Checkpoint, config: ClipConfig, storage: str) -> None:
        tower, width, stem = config.vision, config.vision.hidden_size, f"{STEM}.head"
        self._heads = (tower.num_heads, tower.head_size)
        self._number = number_dtype(storage)
        weight = checkpoint.take(f"{stem}.attention.in_proj_weight", (3 * width, width))
        bias = checkpoint.take(f"{stem}.attention.in_proj_bias", (3 * width,))
        probe = checkpoint.take(f"{stem}.probe", (1, 1, width))
        # The query is the same for every image.
        self._query = Linear(weight[:width], bias[:width])(probe[0])
        self._key_value = Linear(weight[width:], bias[width:], dtype=storage)
        self._output = read_linear(
            checkpoint, [f"{stem}.attention.out_proj"], (width, width), storage
        )
        self._norm = read_norm(checkpoint, f"{stem}.layernorm", tower)
        self._feed_forward = FeedForward(
            checkpoint, f"{stem}.mlp.fc1", f"{stem}.mlp.fc2", tower, storage
        )

    def __call__(self, states: Float32Array, num_threads: int | None) -> Float32Array:
        """Return the vectors (N, E) of hidden states (N, S, E)."""
        count, tokens, width = states.shape
        pairs = empty((count * tokens, 2 * width), self._number)
        self._key_value(states.reshape(-1, width), out=pairs, num_threads=num_threads)
        split = pairs.reshape(count * tokens, 2, *self._heads)
        query = np.repeat(self._query.astype(self._number), count, axis=0)
        gathered = attention_varlen(
            query.reshape(count, *self._heads),
            split[:, 0],
            split[:, 1],
            np.arange(count + 1, dtype=np.int64),
            Ragged.of_rows((count, tokens), None).starts,
            num_threads=num_threads,
        )
        x = empty((count, width), np.float32)
        inner = empty((count, self._feed_forward.up.out_features), self._number)
        steps = Steps(num_threads)
        steps.linear(self._output, gathered.reshape(count, width), out=x)
        normed = self._norm.add_to(steps, x)
        self._feed_forward(normed, inner, x, x, steps)
        steps.run()
        return x
