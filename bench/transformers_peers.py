"""transformers' models with numattn beside "sdpa" (and "eager"): one process, A B A B …, medians.

    python bench/transformers_peers.py --threads 2 --dtype f32,bf16 --json out.json

The models are random, of the shapes of all-MiniLM-L6-v2 and of a Llama of 30 layers (SmolLM-135M).
Everything but attention is transformers' in each case, so a row says what a change of
``attn_implementation`` alone brings. Before timing, results are held to those of "eager" in the
same dtype.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PEERS = ("numattn", "sdpa", "eager")
MOST_DIFFERENCE = {"f32": 1e-4, "bf16": 0.1}
"""Of the largest number, after all layers."""


@dataclass(frozen=True)
class Row:
    """What is timed: a model, its input, and how many tokens are to be made."""

    name: str
    model: str
    batch: int
    length: int
    new_tokens: int = 0
    padded: bool = False


ROWS = (
    Row("MiniLM B1 S32", "minilm", 1, 32),
    Row("MiniLM B1 S256", "minilm", 1, 256),
    Row("MiniLM B32 S128", "minilm", 32, 128),
    Row("MiniLM B32 S128, lengths 8 to 128", "minilm", 32, 128, padded=True),
    Row("Llama B1 prompt of 512", "llama", 1, 512),
    Row("Llama B1 prompt of 2048", "llama", 1, 2048),
    Row("Llama B1 32 tokens after 512", "llama", 1, 512, new_tokens=32),
    Row("Llama B4 32 tokens after 512, padded left", "llama", 4, 512, new_tokens=32, padded=True),
)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", type=lambda text: text.split(","), default=["f32", "bf16"])
    parser.add_argument("--rows", type=lambda text: text.split(","), default=[""])
    parser.add_argument("--peers", type=lambda text: text.split(","), default=list(PEERS[:2]))
    parser.add_argument("--repeats", type=int, default=5, help="turns of each")
    parser.add_argument("--json", type=Path)
    return parser.parse_args(arguments)


def model_of(name: str, dtype: Any) -> Any:
    import torch
    import transformers

    torch.manual_seed(0)
    if name == "minilm":
        config = transformers.BertConfig(
            hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536,
            max_position_embeddings=512,
        )  # fmt: skip
        return transformers.BertModel(config).eval().to(dtype)
    config = transformers.LlamaConfig(
        vocab_size=49152, hidden_size=576, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, intermediate_size=1536, max_position_embeddings=4096,
        tie_word_embeddings=True,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval().to(dtype)


def work_of(row: Row, model: Any) -> Callable[[], Any]:
    """What is timed; it returns numbers that are the same for all, but for rounding."""
    import torch

    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 1000, (row.batch, row.length), generator=generator)
    mask = torch.ones_like(ids)
    if row.padded:
        for index, length in enumerate(torch.linspace(8, row.length, row.batch).int().tolist()):
            hidden = slice(length, None) if row.model == "minilm" else slice(row.length - length)
            mask[index, hidden] = 0
    if row.new_tokens:
        settings = {
            "attention_mask": mask, "max_new_tokens": row.new_tokens,
            "min_new_tokens": row.new_tokens, "do_sample": False, "pad_token_id": 0,
        }  # fmt: skip
        return lambda: model.generate(ids, **settings)
    if row.model == "minilm":
        return lambda: model(ids, attention_mask=mask).last_hidden_state * mask[..., None]
    return lambda: model(ids, attention_mask=mask, logits_to_keep=1).logits


def compared(
    row: Row, model: Any, dtype: str, peers: Sequence[str], repeats: int
) -> dict[str, Any]:
    import torch

    work = work_of(row, model)
    seconds: dict[str, list[float]] = {peer: [] for peer in peers}
    with torch.inference_mode():
        model.set_attn_implementation("eager")
        expected = work().double()
        for peer in peers:
            model.set_attn_implementation(peer)
            found = work().double()
            if not row.new_tokens:  # tokens part where two are almost as likely
                error = (found - expected).abs().max() / expected.abs().max()
                if not error <= MOST_DIFFERENCE[dtype]:
                    sys.exit(f"{row.name}: {peer} differs from eager by {error:.1e}")
        for _ in range(repeats):
            for peer in peers:
                model.set_attn_implementation(peer)
                start = time.perf_counter()
                work()
                seconds[peer].append(time.perf_counter() - start)
    return {
        **asdict(row), "dtype": dtype,
        "milliseconds": {peer: 1e3 * statistics.median(each) for peer, each in seconds.items()},
    }  # fmt: skip


def main() -> None:
    options = parse()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    import torch
    import transformers

    import numattn as na
    import numattn.compat.transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(options.threads)
    na.set_num_threads(options.threads)
    numattn.compat.transformers.register()
    print(
        f"{na.isa.current()}, {options.threads} thread(s), transformers {transformers.__version__}"
    )
    results = []
    for dtype in options.dtype:
        print(f"\n{dtype:<44}" + "".join(f"{peer + ', ms':>14}" for peer in options.peers))
        models: dict[str, Any] = {}
        for row in ROWS:
            if not any(part in row.name for part in options.rows):
                continue
            if row.model not in models:
                kind = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
                models[row.model] = model_of(row.model, kind)
            result = compared(row, models[row.model], dtype, options.peers, options.repeats)
            results.append(result)
            times = result["milliseconds"]
            line = "".join(f"{times[peer]:14.1f}" for peer in options.peers)
            print(f"{row.name:<44}{line}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
