"""`na.approx` beside exact attention: the errors and times of docs/approximations.md.

    python bench/approximations.py [--heads 4] [--lengths 1024 ...] [--repeats 5] [--no-times]

Errors are ‖o − exact‖/‖exact‖ of 256 rows. Times of all methods are taken in turn, over and over;
what is printed is the median, and the ratio of exact attention's to it. Exact attention of long
inputs is timed on 2,048 queries (its time is proportional to them).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import numattn as na

Array = NDArray[Any]
WIDTH, ROWS, TIMED_QUERIES = 64, 256, 2048


def top_blocks(q: Array, k: Array, v: Array, **options: Any) -> Array:
    return na.approx.top_blocks(q, k, v, mass=0.9, **options)


METHODS: dict[str, Callable[[Array, Array, Array], Array]] = {
    "nystrom 64": lambda q, k, v: na.approx.nystrom(q, k, v, 64),
    "nystrom 256": lambda q, k, v: na.approx.nystrom(q, k, v, 256),
    "performer 266": lambda q, k, v: na.approx.performer(q, k, v),
    "performer 1024": lambda q, k, v: na.approx.performer(q, k, v, 1024),
    "linformer 256": lambda q, k, v: na.approx.linformer(q, k, v, mixture(k.shape[2])),
    "linear": lambda q, k, v: na.approx.linear_attention(q, k, v),
    "top_blocks 0.9": top_blocks,
    # What costs nothing: the mean of all values for every query.
    "mean": lambda q, k, v: np.broadcast_to(v.mean(axis=2, keepdims=True), v.shape),
}
CAUSAL: dict[str, Callable[[Array, Array, Array], Array]] = {
    "performer 266, causal": lambda q, k, v: na.approx.performer(q, k, v, is_causal=True),
    "linear, causal": lambda q, k, v: na.approx.linear_attention(q, k, v, is_causal=True),
    "top_blocks 0.9, causal": lambda q, k, v: top_blocks(q, k, v, is_causal=True),
}


def mixture(length: int) -> Array:
    """Means of 256 segments: the best that Linformer can do without training."""
    segments = np.arange(length) * 256 // length
    return np.equal.outer(np.arange(256), segments).astype(np.float32) / (length / 256)


def normal_inputs(heads: int, length: int, size: float) -> tuple[Array, Array, Array]:
    """Independent tokens of normal numbers; queries and keys times a size."""
    rng = np.random.default_rng(length)
    q, k, v = rng.standard_normal((3, 1, heads, length, WIDTH), np.float32)
    return q * np.float32(size), k * np.float32(size), v


def smooth_inputs(heads: int, length: int) -> tuple[Array, Array, Array]:
    """Queries and keys that turn slowly along the sequence, and differ from neighbours by noise."""
    rng = np.random.default_rng(length)
    place = np.linspace(0, 2 * np.pi, length)[:, np.newaxis]
    waves = rng.integers(1, 9, (heads, 1, WIDTH)) * place + rng.uniform(0, 7, (heads, 1, WIDTH))
    noise = rng.standard_normal((2, 1, heads, length, WIDTH), np.float32) / 4
    v = rng.standard_normal((1, heads, length, WIDTH), np.float32)
    q, k = np.sin(waves).astype(np.float32) + noise
    return q, k, v + np.sin(waves[..., ::-1]).astype(np.float32)


def topic_inputs(heads: int, length: int) -> tuple[Array, Array, Array]:
    """Passages of 200 tokens about one of 32 topics, which queries and keys of a passage share."""
    rng = np.random.default_rng(length)
    topics = rng.standard_normal((32, WIDTH), np.float32)
    topic = np.repeat(rng.integers(0, 32, length // 200 + 1), 200)[:length]
    q, k, v = rng.standard_normal((3, 1, heads, length, WIDTH), np.float32)
    return q + topics[topic], k + topics[topic], v + topics[topic]


INPUTS: dict[str, Callable[[int, int], tuple[Array, Array, Array]]] = {
    "normal": lambda heads, length: normal_inputs(heads, length, 1.0),
    "half as large": lambda heads, length: normal_inputs(heads, length, 0.5),
    "smooth": smooth_inputs,
    "topics": topic_inputs,
}


def pages(length: int, repeats: int) -> None:
    """A decoding step over some pages of 16 tokens: recall of the weights, error, time."""
    rng = np.random.default_rng(length)
    count, heads, group = length // 16, 2, 4
    _, k, v = topic_inputs(heads, length)
    k_pages, v_pages = (
        np.ascontiguousarray(x[0].swapaxes(0, 1)).reshape(count, 16, heads, WIDTH) for x in (k, v)
    )
    token = length // 3
    q = rng.standard_normal((1, heads * group, 1, WIDTH), np.float32)
    q += np.repeat(k[:, :, token : token + 1], group, axis=1)  # it looks for a topic and a token
    table, lengths = np.arange(count)[np.newaxis], np.array([length])
    bounds = na.approx.page_bounds(k_pages)
    exact = na.attention_paged(q, k_pages, v_pages, table, lengths)
    weights = na.attention_weights(q, k)[0, :, 0].reshape(heads, group, count, 16).sum(axis=(1, 3))
    for most in (16, 64, 256):
        if most > count:
            continue
        chosen = na.approx.choose_pages(q, k_pages, table, lengths, most, bounds=bounds)[0]
        recall = np.take_along_axis(weights, chosen, axis=1).sum() / weights.sum()
        best = np.sort(weights, axis=1)[:, -most:].sum() / weights.sum()
        calls = (
            lambda: na.attention_paged(q, k_pages, v_pages, table, lengths),
            lambda most=most: na.approx.top_pages(
                q, k_pages, v_pages, table, lengths, most, bounds=bounds
            ),
        )
        taken: list[list[float]] = [[], []]
        for _ in range(10 * repeats):
            for each, call in zip(taken, calls, strict=True):
                begin = time.perf_counter()
                got = call()
                each.append(time.perf_counter() - begin)
        error = np.linalg.norm(got - exact) / np.linalg.norm(exact)
        all_pages, some = (1e3 * float(np.median(each)) for each in taken)
        print(
            f"pages  S {length:6d}  {most:4d} of {count:5d} recall {recall:.3f} (best {best:.3f})  "
            f"error {error:.3f}  {some:.2f} ms, all {all_pages:.2f} ms  {all_pages / some:.2f} x",
            flush=True,
        )


def errors(length: int, only: str | None) -> None:
    rows = np.random.default_rng(1).choice(length, min(ROWS, length), replace=False)
    rows.sort()
    for name, make in INPUTS.items():
        if only not in (None, name):
            continue
        q, k, v = make(1, length)
        for methods, options in ((METHODS, {}), (CAUSAL, {"key_spans": (0, rows + 1)})):
            exact = na.attention(q[:, :, rows], k, v, **options)
            for method, call in methods.items():
                got = call(q, k, v)[:, :, rows]
                error = np.linalg.norm(got - exact) / np.linalg.norm(exact)
                print(f"error  S {length:6d}  {name:14s} {method:22s} {error:8.3f}", flush=True)


def times(heads: int, length: int, repeats: int) -> None:
    q, k, v = topic_inputs(heads, length)  # which matter to top_blocks alone
    some = min(length, TIMED_QUERIES)
    last = np.arange(length - some, length)
    picked = q[:, :, -some:] if some < length else q
    calls: dict[str, Callable[[], Array]] = {
        "exact": lambda: na.attention(picked, k, v),
        # A causal call costs half: the rows timed see all keys.
        "exact, causal": lambda: na.attention(picked, k, v, key_spans=(0, last + 1)),
    }
    for name, call in (METHODS | CAUSAL).items():
        calls[name] = lambda call=call: call(q, k, v)  # type: ignore[misc]
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, run in calls.items():
            begin = time.perf_counter()
            run()
            taken[name].append(time.perf_counter() - begin)
    median = {name: float(np.median(each)) for name, each in taken.items()}
    median["exact"] *= length / some
    median["exact, causal"] *= length / some * (length + 1) / (2 * length - some + 1)
    for name, seconds in median.items():
        base = median["exact, causal" if "causal" in name else "exact"]
        line = f"time   S {length:6d}  {name:22s} {1e3 * seconds:10.1f} ms  {base / seconds:7.2f} x"
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024 << n for n in range(7)])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=INPUTS, help="errors of one kind of inputs")
    parser.add_argument("--no-times", action="store_true")
    arguments = parser.parse_args()
    na.show_config()
    for length in arguments.lengths:
        errors(length, arguments.only)
        pages(length, arguments.repeats)
        if not arguments.no_times:
            times(arguments.heads, length, arguments.repeats)


if __name__ == "__main__":
    main()
