"""A folder of a tiny random Marian model, written by the tests themselves."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from numattn.models.translator.shortlist import MAGIC

VOCABULARY, WIDTH, HEADS, INNER, ENCODERS, DECODERS = 40, 16, 2, 24, 2, 2

SETTINGS = {
    "dec-cell": "ssru",
    "dec-depth": str(DECODERS),
    "dim-emb": str(WIDTH),
    "dim-vocabs": f"\n  - {VOCABULARY}\n  - {VOCABULARY}",
    "enc-depth": str(ENCODERS),
    "tied-embeddings-all": "true",
    "transformer-decoder-autoreg": "rnn",
    "transformer-dim-ffn": str(INNER),
    "transformer-ffn-activation": "relu",
    "transformer-ffn-depth": "2",
    "transformer-heads": str(HEADS),
    "transformer-no-projection": "false",
    "transformer-postprocess": "dan",
    "transformer-postprocess-top": '""',
    "transformer-preprocess": '""',
    "transformer-train-position-embeddings": "false",
    "type": "transformer",
}


def tensors(seed: int = 0) -> dict[str, NDArray[Any]]:
    """Return what a file holds by name: int8 matrices, to be divided by 100, and float32 rows."""
    generator = np.random.default_rng(seed)
    result: dict[str, NDArray[Any]] = {}

    def matrix(name: str, rows: int, columns: int) -> None:
        result[name] = generator.integers(-60, 60, (rows, columns)).astype(np.int8)

    def row(name: str, size: int, mean: float = 0.0) -> None:
        result[name] = (mean + generator.normal(0, 0.3, (1, size))).astype(np.float32)

    def norm(name: str) -> None:
        row(f"{name}_ln_scale", WIDTH, 1.0)
        row(f"{name}_ln_bias", WIDTH)

    def attention(name: str) -> None:
        for part in "qkvo":
            matrix(f"{name}_W{part}", WIDTH, WIDTH)
            row(f"{name}_b{part}", WIDTH)
        norm(f"{name}_Wo")

    def feed_forward(name: str) -> None:
        matrix(f"{name}_W1", WIDTH, INNER)
        row(f"{name}_b1", INNER)
        matrix(f"{name}_W2", INNER, WIDTH)
        row(f"{name}_b2", WIDTH)
        norm(f"{name}_ffn")

    matrix("Wemb", VOCABULARY, WIDTH)
    row("decoder_ff_logit_out_b", VOCABULARY)
    result["decoder_ff_logit_out_b"][0, 0] += 2.5  # so that some sentences end by themselves
    for number in range(1, ENCODERS + 1):
        attention(f"encoder_l{number}_self")
        feed_forward(f"encoder_l{number}_ffn")
    for number in range(1, DECODERS + 1):
        matrix(f"decoder_l{number}_rnn_W", WIDTH, WIDTH)
        matrix(f"decoder_l{number}_rnn_Wf", WIDTH, WIDTH)
        row(f"decoder_l{number}_rnn_bf", WIDTH)
        norm(f"decoder_l{number}_rnn_ffn")
        attention(f"decoder_l{number}_context")
        feed_forward(f"decoder_l{number}_ffn")
    return result


def file_bytes(given: dict[str, NDArray[Any]], settings: dict[str, str]) -> bytes:
    """Return a model file; matrices of int8 stand transposed in it, but for the embeddings."""
    text = "".join(f"{name}: {value}\n" for name, value in settings.items()).encode() + b"\0"
    blocks = {"special:model.yml": (0x0101, (len(text),), text)}
    for name, x in given.items():
        if x.dtype == np.int8:
            stored = x if name == "Wemb" else x.T
            data = stored.tobytes() + struct.pack("<f", 100.0)
            blocks[name] = (0x4101, x.shape, data + b"\0" * (-len(data) % 256))
        else:
            blocks[name] = (0x0404, x.shape, x.tobytes())
    parts = [struct.pack("<2Q", 1, len(blocks))]
    for name, (kind, shape, data) in blocks.items():
        parts.append(struct.pack("<4Q", len(name) + 1, kind, len(shape), len(data)))
    parts += [name.encode() + b"\0" for name in blocks]
    parts += [struct.pack(f"<{len(shape)}i", *shape) for _, shape, _ in blocks.values()]
    gap = -(sum(map(len, parts)) + 8) % 256
    parts.append(struct.pack("<Q", gap) + b"\0" * gap)
    return b"".join(parts + [data for *_, data in blocks.values()])


def shortlist_bytes(lists: list[list[int]], first: int) -> bytes:
    """Return a shortlist file with a list of target words for each source word."""
    offsets = np.cumsum([0] + [len(each) for each in lists]).astype("<u8")
    words = np.array([word for each in lists for word in each], dtype="<u4")
    header = struct.pack("<6Q", MAGIC, 0, first, 50, offsets.size, words.size)
    return header + offsets.tobytes() + words.tobytes()


def write_folder(
    folder: Path,
    given: dict[str, NDArray[Any]] | None = None,
    settings: dict[str, str] | None = None,
    lists: list[list[int]] | None = None,
    first: int = 4,
) -> Path:
    """Write a folder and return it; `settings` changes entries of SETTINGS."""
    folder.mkdir(parents=True, exist_ok=True)
    data = file_bytes(tensors() if given is None else given, {**SETTINGS, **(settings or {})})
    (folder / "tiny.intgemm.alphas.bin").write_bytes(data)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["</s>", "<unk>", "▁", *letters, *(f"▁{letter}" for letter in letters[:11])]
    tokenizer = Tokenizer(models.Unigram([(word, -float(n)) for n, word in enumerate(words)], 1))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.save(str(folder / "tokenizer.json"))
    if lists is not None:
        (folder / "lex.tiny.bin").write_bytes(shortlist_bytes(lists, first))
    return folder


class Oracle:
    """The model in float64, one sentence at a time, as its formulas are written."""

    def __init__(self, given: dict[str, NDArray[Any]]) -> None:
        self.given = {
            name: x / 100 if x.dtype == np.int8 else x[0].astype(np.float64)
            for name, x in given.items()
        }

    def norm(self, x: NDArray[Any], name: str) -> NDArray[Any]:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * self.given[f"{name}_ln_scale"] + self.given[f"{name}_ln_bias"]

    def embedded(self, x: NDArray[Any], start: int) -> NDArray[Any]:
        half = WIDTH // 2
        angles = np.outer(
            np.arange(start, start + len(x)), 10000 ** (-np.arange(half) / (half - 1))
        )
        return x * np.sqrt(WIDTH) + np.concatenate([np.sin(angles), np.cos(angles)], axis=1)

    def attention(self, x: NDArray[Any], context: NDArray[Any], name: str) -> NDArray[Any]:
        g = self.given
        q = x @ g[f"{name}_Wq"] + g[f"{name}_bq"]
        k = context @ g[f"{name}_Wk"] + g[f"{name}_bk"]
        v = context @ g[f"{name}_Wv"] + g[f"{name}_bv"]
        heads = []
        for columns in np.split(np.arange(WIDTH), HEADS):
            scores = q[:, columns] @ k[:, columns].T / np.sqrt(WIDTH // HEADS)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            heads.append(weights / weights.sum(-1, keepdims=True) @ v[:, columns])
        joined = np.concatenate(heads, axis=1)
        return self.norm(x + joined @ g[f"{name}_Wo"] + g[f"{name}_bo"], f"{name}_Wo")

    def feed_forward(self, x: NDArray[Any], name: str) -> NDArray[Any]:
        g = self.given
        inner = np.maximum(x @ g[f"{name}_W1"] + g[f"{name}_b1"], 0)
        return self.norm(x + inner @ g[f"{name}_W2"] + g[f"{name}_b2"], f"{name}_ffn")

    def logits(self, source: list[int], target: list[int]) -> NDArray[Any]:
        """Return the logits of each word after those of `target`, and of the first."""
        g, table = self.given, self.given["Wemb"]
        encoded = self.embedded(table[source], 0)
        for number in range(1, ENCODERS + 1):
            encoded = self.attention(encoded, encoded, f"encoder_l{number}_self")
            encoded = self.feed_forward(encoded, f"encoder_l{number}_ffn")
        x = self.embedded(np.concatenate([np.zeros((1, WIDTH)), table[target]]), 0)
        for number in range(1, DECODERS + 1):
            name = f"decoder_l{number}"
            keep = 1 / (1 + np.exp(-(x @ g[f"{name}_rnn_Wf"] + g[f"{name}_rnn_bf"])))
            fresh, cells, cell = x @ g[f"{name}_rnn_W"], [], np.zeros(WIDTH)
            for row in range(len(x)):
                cell = keep[row] * cell + (1 - keep[row]) * fresh[row]
                cells.append(cell)
            x = self.norm(x + np.maximum(cells, 0), f"{name}_rnn_ffn")
            x = self.attention(x, encoded, f"{name}_context")
            x = self.feed_forward(x, f"{name}_ffn")
        result: NDArray[Any] = x @ table.T + g["decoder_ff_logit_out_b"]
        return result

    def translate(self, source: list[int], words: NDArray[Any] | None = None) -> list[int]:
        """Return the likeliest word after word, of the words given."""
        target: list[int] = []
        words = np.arange(VOCABULARY) if words is None else words
        while (not target or target[-1] != 0) and len(target) < 2.5 * len(source):
            last = self.logits(source, target)[-1, words]
            target.append(int(words[last.argmax()]))
        return target
