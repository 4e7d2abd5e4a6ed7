"""Multi-head latent attention beside PyTorch: a step of decoding over a cache of latents.

    python bench/mla.py --threads 1 [--keys 4096 32768] [--heads 16 128] [--dtype bfloat16]

Absorbed, as DeepSeek-V2 and V3 decode: one key head of 576 elements, whose first 512 are the
values. PyTorch stands with the fastest of scaled_dot_product_attention with grouped heads, the same
with expanded ones, and two products with a softmax between them. GFLOP/s count 2·Hq·Sk·(576 + 512);
GB/s are the bytes of the latents, once, by the time. "apart" is numattn with values of their own,
which must be read as well.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

from patterns import timed

LATENT, WIDTH = 512, 576
SCALE = 192**-0.5  # of 128 + 64 elements before the absorption


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--keys", type=int, nargs="+", default=[4096, 32768])
    parser.add_argument("--heads", type=int, nargs="+", default=[16, 128])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--min-time", type=float, default=2.0, help="seconds for each way")
    parser.add_argument("--cpu-time", action="store_true", help="on a machine that others use too")
    arguments = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(arguments.threads)
    import torch

    import numattn as na

    torch.set_num_threads(arguments.threads)
    print(f"{arguments.dtype}, {na.isa.current()}, {arguments.threads} threads", end="")
    print(f"{', processor time' if arguments.cpu_time else ''}; PyTorch {torch.__version__}\n")
    print("| Hq | Sk | numattn, ms | GFLOP/s | GB/s | apart, ms | PyTorch, ms | its way | ratio |")
    print("|--:|--:|--:|--:|--:|--:|--:|---|--:|")
    for heads in arguments.heads:
        for keys in arguments.keys:
            print(row(torch, heads, keys, arguments), flush=True)


def row(torch: Any, heads: int, keys: int, arguments: argparse.Namespace) -> str:
    """Return one line of the table."""
    import numpy as np

    import numattn as na
    from cases import Source

    source = Source({"float32": "f32", "bfloat16": "bf16"}[arguments.dtype])
    q, k = source.normal(1, heads, 1, WIDTH), source.normal(1, 1, keys, WIDTH)
    v = k[..., :LATENT]
    apart = np.ascontiguousarray(v)
    threads = arguments.threads
    ways: dict[str, Callable[[], Any]] = {
        "numattn": lambda: na.attention(q, k, v, scale=SCALE, num_threads=threads),
        "apart": lambda: na.attention(q, k, apart, scale=SCALE, num_threads=threads),
        **peers(torch, *(torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
                         if x.itemsize == 2 else torch.from_numpy(x) for x in (q, k))),
    }  # fmt: skip
    rows = q.swapaxes(1, 2)  # heads are as good as queries of one, whose keys stand there once
    exact = na.reference.attention(rows, k, v, scale=SCALE).swapaxes(1, 2)
    first: dict[str, float] = {}
    with torch.inference_mode():
        for name, way in ways.items():
            start = time.perf_counter()
            o = way()
            first[name] = time.perf_counter() - start
            o = o.float().numpy() if isinstance(o, torch.Tensor) else o.astype(np.float32)
            error = np.linalg.norm(o - exact) / np.linalg.norm(exact)
            if error > {4: 2e-5, 2: 3e-2}[q.itemsize]:
                raise SystemExit(f"{name} is wrong by {error:.1e}")
        # Some make a copy of the latents for each head, and take seconds.
        least = min(seconds for name, seconds in first.items() if name not in ("numattn", "apart"))
        seconds = timed({n: way for n, way in ways.items() if first[n] < 5 * least}, arguments)
    ours, beside = seconds.pop("numattn"), seconds.pop("apart")
    best = min(seconds, key=lambda name: seconds[name])
    rate = 2 * heads * keys * (WIDTH + LATENT) / ours / 1e9
    return (
        f"| {heads} | {keys} | {1e3 * ours:.2f} | {rate:.1f} | {k.nbytes / ours / 1e9:.1f} "
        f"| {1e3 * beside:.2f} | {1e3 * seconds[best]:.2f} | {best} | {seconds[best] / ours:.2f} |"
    )


def peers(torch: Any, q: Any, k: Any) -> dict[str, Callable[[], Any]]:
    v = k[..., :LATENT]
    attend = torch.nn.functional.scaled_dot_product_attention
    wide_k, wide_v = (x.expand(-1, q.shape[1], -1, -1) for x in (k, v))

    def products() -> Any:
        """All heads as the rows of one, as the model's own code would."""
        weights = torch.softmax(q[:, :, 0] @ k[:, 0].transpose(1, 2) * SCALE, -1)
        return (weights @ v[:, 0])[:, :, None]

    return {
        "SDPA, enable_gqa": lambda: attend(q, k, v, scale=SCALE, enable_gqa=True),
        "SDPA, expanded": lambda: attend(q, wide_k, wide_v, scale=SCALE),
        "two products": products,
    }


if __name__ == "__main__":
    main()
