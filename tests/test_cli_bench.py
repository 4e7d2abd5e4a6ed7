"""`numattn bench`: what its rows compute and count, its table, what it needs; nothing is timed."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pytest

import numattn as na
from child import output_of
from command_line import refused
from numattn import reference
from numattn.cli import bench, bench_rows, main, processor, stopwatch

NAMES = [
    ("attention, 8 tokens", "float32"),
    ("attention, 8 tokens, causal", "float32"),
    ("attention, 20 tokens", "float32"),
    ("attention, 20 tokens, causal", "float32"),
    ("attention, 8 tokens", "bfloat16"),
    ("attention, 8 tokens, causal", "bfloat16"),
    ("attention, 20 tokens", "bfloat16"),
    ("attention, 20 tokens, causal", "bfloat16"),
    ("decoding over 32 tokens", "float32"),
    ("decoding over 32 tokens", "bfloat16"),
    ("decoding over 32 tokens", "int8"),
    ("Linear, 4 × 16 → 8", "float32"),
    ("Linear, 4 × 16 → 8", "bfloat16"),
    ("Linear, 4 × 16 → 8", "int8"),
    ("Linear, 4 × 16 → 8", "w8a8"),
    ("all-MiniLM-L6-v2, texts of 21 tokens", "float32"),
]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that take no time."""
    for name, value in {
        "LENGTHS": (8, 20), "CACHED": 32, "ROWS": 4, "INPUTS": 16, "OUTPUTS": 8, "TEXTS": 2
    }.items():  # fmt: skip
        monkeypatch.setattr(bench_rows, name, value)


def row_of(name: str, dtype: str = "float32") -> bench_rows.Row:
    (row,) = [row for row in bench_rows.rows() if (row.name, row.dtype) == (name, dtype)]
    return row


def test_a_table(small: None, capsys: pytest.CaptureFixture[str]) -> None:
    limits: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(na, "set_num_threads", limits.append)  # the process's own stay
        assert main(["bench", "--seconds", "0.01", "--threads", "1"]) == 0
    assert limits == [1]
    printed = capsys.readouterr().out
    assert printed.startswith(f"numattn {na.__version__}, NumPy {np.__version__}\n")
    assert f"\ninstruction set {na.isa.current()}, threads {na.get_num_threads()}\n\n" in printed
    header, *rows = printed.split("\n\n")[1].splitlines()
    assert header.split() == ["unit", "numattn", "±"]
    assert len(rows) == len(NAMES) and len({len(row) for row in rows}) == 1
    for row, (name, dtype) in zip(rows, NAMES, strict=True):
        assert row.startswith(name) and row[len(name) :].split()[0] == dtype
        assert float(row.split()[-3]) >= 0 and row.endswith(" %")  # a rate is checked as JSON


def test_as_json(small: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--seconds", "0.01", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["instruction_set"] == na.isa.current() and found["left_out"] == []
    assert found["threads"] == na.get_num_threads()
    assert [(row["name"], row["dtype"]) for row in found["rows"]] == NAMES
    for row in found["rows"]:
        own = row["numattn"]
        assert own["quartiles"][0] <= own["seconds"] <= own["quartiles"][1] and own["calls"] >= 3
        work = row_of(row["name"], row["dtype"]).work / (1 if row["unit"] == "texts/s" else 1e9)
        assert own["rate"] == pytest.approx(work / own["seconds"]) and "torch" not in row


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_attention_is_computed(small: None, causal: bool, dtype: str) -> None:
    row = row_of(f"attention, 20 tokens{', causal' if causal else ''}", dtype)
    found: Any = row.prepare()()
    q, k, v = (bench_rows.normal(dtype, 1, 12, 20, 64) for _ in range(3))
    expected = reference.attention(q, k, v, is_causal=causal)
    tolerance = 1e-5 if dtype == "float32" else 0.05
    np.testing.assert_allclose(found.astype(np.float64), expected, rtol=0, atol=tolerance)
    assert row.work == 4 * 12 * 64 * (210 if causal else 400)


def test_a_step_is_computed(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all layers, and the cache has as many tokens afterwards as before."""
    seen: list[tuple[int, int]] = []
    whole = na.KVCache.attend

    def noted(cache, layer, *rest, **options):  # type: ignore[no-untyped-def]
        found = whole(cache, layer, *rest, **options)
        seen.append((layer, int(cache.layer_lengths(layer)[0])))
        return found

    monkeypatch.setattr(na.KVCache, "attend", noted)
    for dtype, size in [("float32", 4), ("bfloat16", 2), ("int8", 1)]:
        row = row_of("decoding over 32 tokens", dtype)
        step = row.prepare()
        for _ in range(2):
            step()
        assert seen == [(layer, 32) for _ in range(2) for layer in range(4)]
        seen.clear()
        scales = 4 if dtype == "int8" else 0
        assert row.work == 2 * 4 * 8 * 32 * (128 * size + scales)


def test_a_projection_is_computed(small: None) -> None:
    x = bench_rows.normal("float32", 4, 16).astype(np.float64)
    weight = bench_rows.normal("float32", 8, 16).astype(np.float64) / 4
    for dtype, tolerance in [("float32", 1e-6), ("bfloat16", 0.05), ("int8", 0.05), ("w8a8", 0.05)]:
        row = row_of("Linear, 4 × 16 → 8", dtype)
        found: Any = row.prepare()()
        np.testing.assert_allclose(found, x @ weight.T, rtol=0, atol=tolerance)
        assert row.work == 2 * 4 * 16 * 8


def test_texts_have_the_tokens_that_the_row_names() -> None:
    from numattn.models import installed_folder, load

    texts = [bench_rows.TEXT.format(number) for number in range(bench_rows.TEXTS)]
    assert set(load(installed_folder()).tokenize(texts).lengths.tolist()) == {21}


def test_beside_torch(small: None, capsys: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch")
    for dtype in ("float32", "bfloat16"):
        row = row_of("attention, 20 tokens, causal", dtype)
        assert row.prepare_peer is not None
        own, theirs = row.prepare()(), row.prepare_peer()()
        assert theirs.dtype == getattr(torch, dtype)
        close = 1e-5 if dtype == "float32" else 0.05
        found = theirs.to(torch.float32).numpy()
        np.testing.assert_allclose(found, own.astype(np.float32), rtol=0, atol=close)
    threads = torch.get_num_threads()
    try:
        assert main(["bench", "--seconds", "0.01", "--peers", "--json"]) == 0
        rows = json.loads(capsys.readouterr().out)["rows"]
        assert [("torch" in row) for row in rows] == [True] * 8 + [False] * 8
        assert main(["bench", "--seconds", "0.01", "--peers"]) == 0
    finally:
        torch.set_num_threads(threads)
    lines = capsys.readouterr().out.split("\n\n")[1].splitlines()
    assert lines[0].split() == ["unit", "numattn", "±", "PyTorch", "±"]
    assert lines[1].count("%") == 2 and lines[-1].count("%") == 1


def test_numpy_alone() -> None:
    """What needs more is left out, and that is said."""
    script = """
        import json, sys
        for name in ("ml_dtypes", "tokenizers", "safetensors", "tqdm", "torch"):
            sys.modules[name] = None
        from numattn.cli import bench_rows, main
        bench_rows.LENGTHS, bench_rows.CACHED, bench_rows.ROWS = (8, 20), 32, 4
        print(main(["bench", "--seconds", "0.01", "--json"]))
        print(main(["bench", "--seconds", "0.01"]))
        print(main(["bench", "--peers"]))
    """
    first, code, *others = output_of(script).splitlines()
    found = json.loads(first)
    assert code == "0" and len(found["rows"]) == 10
    assert [each["dtype"] for each in found["left_out"]] == ["bfloat16"] * 5 + ["float32"]
    assert found["left_out"][0]["reason"] == "ml_dtypes is not installed: pip install ml_dtypes"
    assert any(each.startswith("left out: decoding over 32 tokens, bfloat16: ") for each in others)
    assert others[-2:] == ["0", "2"]


def test_errors_of_a_row_are_the_command_s(
    small: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*rest: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(na, "attention", failing)
    assert main(["bench"]) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "many"])
def test_seconds(capsys: pytest.CaptureFixture[str], seconds: str) -> None:
    message = refused(capsys, "bench", f"--seconds={seconds}")
    assert f"--seconds: must be a number of seconds above 0, not '{seconds}'" in message


def test_peers_that_are_not_installed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "--peers needs PyTorch: pip install torch" in refused(capsys, "bench", "--peers")


class Clock:
    """A clock that goes on by what calls take, and not otherwise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.order = 0.0, list[str]()
        monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(stopwatch.time, "sleep", lambda seconds: None)

    def call(self, name: str, seconds: float) -> None:
        self.order.append(name)
        self.now += seconds


def test_slow_calls_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    first, second = stopwatch.timings(
        [lambda: clock.call("a", 1.0), lambda: clock.call("b", 3.0)], 15.0
    )
    assert "".join(clock.order) == "ab" + "ab" * 4
    assert (first, second.seconds, second.calls) == ((1.0, (1.0, 1.0), 4), 3.0, 4)
    assert first.spread == 0


def test_too_little_time_is_enough_for_a_median(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    (timing,) = stopwatch.timings([lambda: clock.call("a", 1.0)], 0.5)
    assert timing.calls == 3 and len(clock.order) == 4


def test_a_turn_of_short_calls_begins_with_one_that_is_not_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    taken = iter([0.03, *[0.0101] * 10])
    found = stopwatch.turn(lambda: clock.call("a", next(taken)))
    assert found == pytest.approx([0.0101, 0.0101])


def test_cores_are_told_apart() -> None:
    """Two processors of two cores, of two threads each; and a system that says nothing of it."""
    entry = (
        "processor\t: 0\nmodel name\t: A B\nphysical id\t: {}\nsiblings\t: 4\ncore id\t\t: {}\n\n"
    )
    text = "".join(entry.format(n // 4, n // 2 % 2) for n in range(8))
    assert processor.cores_of(text) == 4
    assert processor.cores_of("processor\t: 0\nBogoMIPS\t: 50.00\n\n") is None


def test_numbers_stand_to_the_right() -> None:
    row = row_of("attention, 512 tokens")
    fast, slow = (stopwatch.Timing(s, (s, 1.5 * s), 3) for s in (1e-3, 1.0))
    lines = bench.table([bench.Measured(row, fast, slow), bench.Measured(row, slow, None)], True)
    assert lines[1].split()[-6:] == [f"{row.work / 1e6:.1f}", "25", "%", f"{row.work / 1e9:.1f}",
                                     "25", "%"]  # fmt: skip
    assert lines[2].endswith("25 %") and lines[1].index("25 %") == lines[2].index("25 %")
