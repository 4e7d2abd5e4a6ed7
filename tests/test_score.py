"""The score arguments: one list of them, from the keyword to the core."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import numattn as na
from numattn import _core, _score, reference
from numattn._score import Score
from numattn.cache import CacheLayer

ONE = np.eye(8, dtype=np.float32)
CACHE = Path(__file__).resolve().parent.parent / ".mypy_cache"  # that of `make lint`

EVERY = set(Score._fields)
HEADS = {
    "window", "key_spans", "sink_tokens", "block_mask", "scale", "softcap", "alibi_slopes", "sinks",
    "skip_below",
}  # fmt: skip
# A function, what it takes of the score, and a call of it with further keywords.
FAMILY: dict[str, tuple[Callable[..., Any], set[str], Callable[..., Any]]] = {
    "attention": (na.attention, EVERY, lambda **k: na.attention(ONE, ONE, ONE, **k)),
    "attention_weights": (
        na.attention_weights, EVERY, lambda **k: na.attention_weights(ONE, ONE, **k)
    ),
    "attention_varlen": (
        na.attention_varlen, HEADS | {"is_causal", "q_offset"},
        lambda **k: na.attention_varlen(ONE, ONE, ONE, [0], [0], **k),
    ),
    "attention_paged": (
        na.attention_paged, EVERY - {"kv_lens"},
        lambda **k: na.attention_paged(ONE, ONE, ONE, [[0]], [0], **k),
    ),
    "plan": (na.plan, EVERY, lambda **k: na.plan((1, 8, 8), (1, 8, 8), **k)),
    "MultiHeadAttention.__call__": (
        na.MultiHeadAttention.__call__, EVERY,
        lambda **k: na.MultiHeadAttention(2, ONE, ONE, ONE, ONE)(ONE, **k),
    ),
    "KVCache.attend": (
        na.KVCache.attend, HEADS | {"relative"},
        lambda **k: na.KVCache(1, 1, 1, 8).attend(0, ONE, ONE, ONE, **k),
    ),
    "PagedKVCache.attend": (
        na.PagedKVCache.attend, HEADS | {"relative"},
        lambda **k: na.PagedKVCache(1, 1, 1, 8, pages=1).attend(0, ONE, ONE, ONE, **k),
    ),
    "CacheLayer.attend": (
        CacheLayer.attend, HEADS | {"relative"},
        lambda **k: na.KVCache(1, 1, 1, 8).layer(0).attend(ONE, ONE, ONE, **k),
    ),
}  # fmt: skip
REFERENCE = {
    "attention": lambda **k: reference.attention(ONE, ONE, ONE, **k),
    "attention_weights": lambda **k: reference.attention_weights(ONE, ONE, **k),
    "attention_scores": lambda **k: reference.attention_scores(ONE, ONE, **k),
    "MultiHeadAttention.__call__": lambda **k: reference.MultiHeadAttention(2, ONE, ONE, ONE, ONE)(
        ONE, **k
    ),
}


def test_fields_are_those_that_the_core_reads() -> None:
    assert Score._fields == _core.score_fields


def test_every_field_is_a_keyword() -> None:
    assert tuple(inspect.signature(Score.of).parameters) == Score._fields
    assert _score.ScoreOptions.__optional_keys__ == EVERY
    assert set(_score._meanings()) == EVERY


def test_left_out_is_what_the_core_takes_for_none() -> None:
    assert Score.of() == (None, None, False, None, (-1, -1), None, 0, *[None] * 7, 0.0)


@pytest.mark.parametrize("name", FAMILY)
def test_keywords_are_spelled_out(name: str) -> None:
    """What help() and editors show: each keyword and its default, and no ``**score``."""
    function, taken, _ = FAMILY[name]
    shown = inspect.signature(function).parameters
    assert taken == (set(shown) & EVERY) - (
        {"kv_lens"} if name == "attention_paged" else set()  # an argument of its own there
    )
    assert "score" not in shown
    for keyword in taken:
        of = inspect.signature(Score.of).parameters[keyword]
        assert (shown[keyword].default, shown[keyword].annotation) == (of.default, of.annotation)


def test_the_docstring_says_what_each_means() -> None:
    text = inspect.getdoc(na.attention)
    assert text is not None and "{score}" not in text
    for keyword in EVERY:
        assert f"\n{keyword} : " in text
    assert "\n    Key j is visible iff" in text


@pytest.mark.parametrize("name", FAMILY)
def test_a_wrong_keyword_is_refused_by_the_function_called(name: str) -> None:
    _, taken, call = FAMILY[name]
    with pytest.raises(TypeError) as caught:
        call(windw=(1, 1))
    assert str(caught.value) == (
        f"{name}() got an unexpected keyword argument 'windw'. Did you mean 'window'?"
    )
    for other in EVERY - taken - {"kv_lens"}:
        with pytest.raises(TypeError, match=f"{name}.. got an unexpected keyword .* '{other}'"):
            call(**{other: None})


@pytest.mark.parametrize("name", REFERENCE)
def test_a_wrong_keyword_of_the_reference(name: str) -> None:
    with pytest.raises(TypeError, match=rf"{name}\(\) got an unexpected keyword argument 'windw'"):
        REFERENCE[name](windw=(1, 1))


@pytest.mark.parametrize("flag", ["is_causal", "return_lse"])
@pytest.mark.parametrize("value", ["no", "", "False", None, 2, -1, 1.0, [True], np.ones(2, bool)])
def test_a_flag_is_true_or_false(flag: str, value: Any) -> None:
    """Any string but the empty one would be true."""
    q = ONE[np.newaxis]
    with pytest.raises(TypeError, match=f"{flag} must be True or False, not "):
        na.attention(q, q, q, **{flag: value})


@pytest.mark.parametrize("value", [True, 1, np.True_, np.int64(1), np.array(1)])
def test_what_is_true(value: Any) -> None:
    q = ONE[np.newaxis]
    expected = na.attention(q, q, q, is_causal=True, return_lse=True)
    for got, right in zip(
        na.attention(q, q, q, is_causal=value, return_lse=value), expected, strict=True
    ):
        np.testing.assert_array_equal(got, right)


SNIPPET = """
import numpy as np
import numattn as na

x = np.zeros((1, 1, 2, 4), np.float32)
o: np.ndarray = na.attention(x, x, x, window=(1, None), is_causal=True, q_offset=[3], scale=2)
both: tuple[np.ndarray, np.ndarray] = na.attention(x, x, x, return_lse=True, softcap=1.0)
na.attention(x, x, x, windw=(1, 1))  # wrong
na.attention(x, x, x, window="x")  # wrong
na.attention(x, x, x, is_causal="yes")  # wrong
na.attention(x, x, x, softcap="30")  # wrong
na.attention(x, x, x, return_lse=True).shape  # wrong
na.attention_weights(x, x, k_lens=[1])  # wrong
na.attention_varlen(x, x, x, [0], [0], mask=x)  # wrong
na.attention_paged(x, x, x, [[0]], [0], relative=3)  # wrong
na.plan((1, 2), (1, 2), sinks=object())  # wrong
cache = na.KVCache(1, 1, 1, 4)
cache.attend(0, x, x, x, window=(3, 0), sinks=[1.0])
cache.attend(0, x, x, x, is_causal=True)  # wrong
cache.layer(0).attend(x, x, x, kv_lens=[1])  # wrong
mha = na.MultiHeadAttention(1, x, x, x, x)
mha(x, window=(3, 0), is_causal=True, kv_lens=[1])
mha(x, softcap="much")  # wrong
"""


@pytest.mark.slow
def test_mypy_knows_the_keywords(tmp_path: Path) -> None:
    """It finds each wrong one and its type, and nothing else."""
    pytest.importorskip("mypy")
    script = tmp_path / "snippet.py"
    script.write_text(SNIPPET, encoding="utf-8")
    package = Path(na.__file__).parent.parent
    installed = package.name == "site-packages"  # where mypy looks by itself, and refuses to be led
    run = subprocess.run(
        [
            sys.executable, "-m", "mypy", "--strict", "--python-version", "3.10",
            "--cache-dir", str(CACHE), "--no-error-summary", "--hide-error-context",
            str(script),
        ],
        cwd=tmp_path,
        env={} if installed else {"MYPYPATH": str(package)},
        capture_output=True,
        text=True,
    )  # fmt: skip
    errors = [line for line in run.stdout.splitlines() if ": error: " in line]
    found = {int(line.partition("snippet.py:")[2].partition(":")[0]) for line in errors}
    wrong = {i for i, line in enumerate(SNIPPET.splitlines(), 1) if line.endswith("# wrong")}
    assert found == wrong, run.stdout
    assert 'did you mean "window"?' in run.stdout
