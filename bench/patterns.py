"""Sparse patterns beside the plain window: what a listed block costs, and what peers take.

    python bench/patterns.py --threads 1                     # S 16384, H 4, D 64
    python bench/patterns.py --length 4096 --peers           # transformers' layers, flex attention
    python bench/patterns.py --peers flex                    # that alone: it compiles a minute

The rate counts 4·H·D operations for a visible pair. The rate of a pattern over that of the window
says what lists cost beside an interval. A peer's layer and ours project with the same weights.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from measure import Clock, interleave

if TYPE_CHECKING:
    from numattn import BlockMask

HEADS, DIM = 4, 64
WIDTH = HEADS * DIM
WINDOW, BLOCK = 512, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--length", type=int, default=16384)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--min-time", type=float, default=2.0, help="seconds for each way")
    parser.add_argument("--cpu-time", action="store_true", help="on a machine that others use too")
    parser.add_argument(
        "--peers", nargs="*", choices=("longformer", "bigbird", "flex"),
        help="transformers and torch, where there; all of them, or those named",
    )  # fmt: skip
    arguments = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(arguments.threads)
    compare_rates(arguments)
    if arguments.peers is not None:
        compare_layers(arguments)


def patterns(length: int) -> dict[str, BlockMask]:
    import numattn as na

    return {
        "the window's blocks": na.patterns.longformer(length, WINDOW),
        "Longformer, 1 global token": na.patterns.longformer(length, WINDOW, 1),
        "Longformer, 64 global tokens": na.patterns.longformer(length, WINDOW, 64),
        "BigBird, blocks of 64": na.patterns.bigbird(length),
        "dilated by 2": na.patterns.dilated(length, WINDOW, 2),
    }


class ProcessorClock(Clock):
    """Counts the processor's time, of all threads, and not what others took meanwhile."""

    def call(self) -> float:
        start = time.process_time()
        self.run()
        return time.process_time() - start


def timed(ways: dict[str, Callable[[], Any]], arguments: argparse.Namespace) -> dict[str, float]:
    """Return the median seconds of each way; they take turns."""
    kind = ProcessorClock if arguments.cpu_time else Clock
    clocks = {name: kind(run) for name, run in ways.items()}
    for clock in clocks.values():
        clock.call()
    rest = arguments.threads > 1
    interleave(list(clocks.values()), repeats=3, min_time=arguments.min_time, rest=rest)
    return {name: clock.median() for name, clock in clocks.items()}


def compare_rates(arguments: argparse.Namespace) -> None:
    """Print each pattern's time, rate and share of the plain window's rate."""
    import numattn as na
    from cases import Source

    length, threads = arguments.length, arguments.threads
    source = Source({"float32": "f32", "bfloat16": "bf16"}[arguments.dtype])
    q, k, v = (source.normal(1, HEADS, length, DIM) for _ in range(3))
    masks = patterns(length)
    reach = (WINDOW // 2, WINDOW // 2)
    ways: dict[str, Callable[[], Any]] = {
        "plain window": lambda: na.attention(q, k, v, window=reach, num_threads=threads)
    }
    for name, mask in masks.items():
        ways[name] = lambda mask=mask: na.attention(q, k, v, block_mask=mask, num_threads=threads)
    seconds = timed(ways, arguments)
    same = masks["the window's blocks"]
    pairs = {name: length**2 * (1 - mask.sparsity) for name, mask in masks.items()}
    pairs["plain window"] = length**2 * (1 - same.sparsity)
    print(f"S {length}, H {HEADS}, D {DIM}, {arguments.dtype}, {na.isa.current()}, ", end="")
    print(f"{threads} threads{', processor time' if arguments.cpu_time else ''}\n")
    print("| | visible | ms | GFLOP/s | of the window's rate |\n|---|---|---|---|---|")
    rates = {name: 4 * WIDTH * pairs[name] / seconds[name] / 1e9 for name in ways}
    for name, rate in rates.items():
        share = rate / rates["plain window"]
        visible = pairs[name] / length**2
        print(f"| {name} | {visible:.1%} | {1e3 * seconds[name]:.1f} | {rate:.1f} | {share:.2f} |")


def compare_layers(arguments: argparse.Namespace) -> None:
    """Print how long transformers' layers and compiled flex attention take beside ours."""
    import numpy as np
    import torch

    torch.set_num_threads(arguments.threads)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, arguments.length, WIDTH), dtype=np.float32)
    print("\n| | theirs, ms | ours, ms | ratio |\n|---|---|---|---|")
    masks = patterns(arguments.length)
    makers = {"longformer": longformer, "bigbird": bigbird, "flex": flex}
    for peer in arguments.peers or makers:
        with torch.inference_mode():
            try:
                name, pair = makers[peer](torch, x, masks, arguments.threads)
                seconds = timed(pair, arguments)
            except Exception as error:  # a peer's fault is a line of the table
                print(f"| {peer} | {type(error).__name__}: {str(error)[:60]} | | |")
                continue
        theirs, ours = seconds["theirs"], seconds["ours"]
        print(f"| {name} | {1e3 * theirs:.1f} | {1e3 * ours:.1f} | {theirs / ours:.1f} |")


Pair = tuple[str, dict[str, Callable[[], Any]]]


def our_layer(layer: Any, x: Any, mask: BlockMask, threads: int) -> Callable[[], Any]:
    """Return attention with a layer's projections."""
    import numattn as na

    weights = []
    for name in ("query", "key", "value"):
        linear = getattr(layer, name)
        weights.append(na.Linear(*(each.detach().numpy() for each in linear.parameters())))

    def run() -> Any:
        q, k, v = (
            linear(x, num_threads=threads).reshape(*x.shape[:2], HEADS, DIM) for linear in weights
        )
        return na.attention(q, k, v, layout="bshd", block_mask=mask, num_threads=threads)

    return run


def longformer(torch: Any, x: Any, masks: dict[str, BlockMask], threads: int) -> Pair:
    from transformers.models.longformer import LongformerConfig
    from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

    rows = torch.from_numpy(x)
    layer = LongformerSelfAttention(
        LongformerConfig(hidden_size=WIDTH, num_attention_heads=HEADS, attention_window=[WINDOW]), 0
    ).eval()
    is_global = torch.zeros(x.shape[:2], dtype=torch.bool)
    is_global[0, 0] = True

    def theirs() -> Any:
        return layer(
            rows,
            attention_mask=10000.0 * is_global.float(),
            is_index_masked=torch.zeros_like(is_global),
            is_index_global_attn=is_global,
            is_global_attn=True,
        )

    ours = our_layer(layer, x, masks["Longformer, 1 global token"], threads)
    return "Longformer layer", {"theirs": theirs, "ours": ours}


def bigbird(torch: Any, x: Any, masks: dict[str, BlockMask], threads: int) -> Pair:
    from transformers.models.big_bird import BigBirdConfig
    from transformers.models.big_bird.modeling_big_bird import (
        BigBirdBlockSparseAttention,
        BigBirdModel,
    )

    rows, length = torch.from_numpy(x), x.shape[1]
    layer = BigBirdBlockSparseAttention(
        BigBirdConfig(
            hidden_size=WIDTH,
            num_attention_heads=HEADS,
            block_size=BLOCK,
            max_position_embeddings=length,
        )
    ).eval()
    blocked, band, from_mask, to_mask = BigBirdModel.create_masks_for_block_sparse_attn(
        torch.ones((1, length)), BLOCK
    )

    def theirs() -> Any:
        return layer(
            rows,
            band_mask=band,
            from_mask=from_mask,
            to_mask=to_mask,
            from_blocked_mask=blocked,
            to_blocked_mask=blocked,
        )

    ours = our_layer(layer, x, masks["BigBird, blocks of 64"], threads)
    return "BigBird layer", {"theirs": theirs, "ours": ours}


def flex(torch: Any, x: Any, masks: dict[str, BlockMask], threads: int) -> Pair:
    import numpy as np
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    import numattn as na

    length = x.shape[1]
    q = np.ascontiguousarray(x.reshape(1, length, HEADS, DIM).swapaxes(1, 2))
    tensor = torch.from_numpy(q)

    def visible(batch: Any, head: Any, i: Any, j: Any) -> Any:
        return ((i - j).abs() <= WINDOW // 2) | (i == 0) | (j == 0)

    block_mask = create_block_mask(visible, None, None, length, length, device="cpu")
    compiled = torch.compile(flex_attention, dynamic=False)
    mask = masks["Longformer, 1 global token"]
    ways = {
        "theirs": lambda: compiled(tensor, tensor, tensor, block_mask=block_mask),
        "ours": lambda: na.attention(q, q, q, block_mask=mask, num_threads=threads),
    }
    first, ours = ways["theirs"]().numpy(), ways["ours"]()
    assert np.linalg.norm(first - ours) < 1e-4 * np.linalg.norm(ours)
    return "flex attention, compiled, Longformer", ways


if __name__ == "__main__":
    main()
