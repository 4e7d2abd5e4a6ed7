"""`encode` tokenises the next texts in a thread of its own while it computes the last ones."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from child import output_of
from numattn.models import Bert
from numattn.models.encoder import text_encoder, tokenized
from numattn.models.encoder.ahead import one_ahead
from tiny_bert import SENTENCES, write_folder
from tolerance import assert_same_bits

TEXTS = SENTENCES * 4


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bert:
    return Bert.from_folder(write_folder(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = threading.enumerate()
    yield
    assert threading.enumerate() == before


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenized, "PIECE_TEXTS", 3)


# --- one_ahead ------------------------------------------------------------------------------------


def test_where_things_are_taken_and_worked_on() -> None:
    here, taken, worked = threading.get_ident(), [], []

    def things() -> Iterator[int]:
        for thing in range(5):
            taken.append(threading.get_ident())
            yield thing

    def work(thing: int) -> int:
        worked.append(threading.get_ident())
        return thing * thing

    assert [*one_ahead(work, things())] == [0, 1, 4, 9, 16]
    assert taken == [here] * 5
    assert worked[0] == here and here not in worked[1:]


def test_one_thing_and_none_start_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", None)
    assert [*one_ahead(len, ["abc"])] == [3]
    assert [*one_ahead(len, [])] == []


def test_the_next_is_worked_on_meanwhile() -> None:
    """Work on the second does not end before the caller has had the first."""
    used = threading.Event()

    def work(thing: int) -> bool:
        return thing == 0 or used.wait(30)

    results = []
    for result in one_ahead(work, range(2)):
        results.append(result)
        used.set()
    assert results == [True, True]


@pytest.mark.parametrize("bad", [0, 1, 2, 4])
def test_errors_come_in_their_turn(bad: int) -> None:
    def work(thing: int) -> int:
        if thing == bad:
            raise LookupError(f"no {thing}")
        return thing

    seen = []
    with pytest.raises(LookupError, match=f"no {bad}"):
        seen.extend(one_ahead(work, range(5)))  # extend() keeps what came before
    assert seen == [*range(bad)]


def test_an_iterable_that_fails() -> None:
    def things() -> Iterator[str]:
        yield from ("a", "b", "c")
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        [*one_ahead(len, things())]


def test_closed_before_its_end() -> None:
    working = threading.Event()
    results = one_ahead(lambda thing: working.wait(0.05), range(9))
    next(results)
    results.close()


def test_threads_that_are_not_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    assert [*one_ahead(len, ["a", "bcd", ""])] == [1, 3, 0]


# --- encode ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_pieces")
def test_pieces_change_no_vector(tiny: Bert, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = tiny.encode(TEXTS, batch_tokens=30)
    monkeypatch.setattr(tokenized, "PIECE_TEXTS", len(TEXTS))
    assert_same_bits(vectors, tiny.encode(TEXTS))
    assert_same_bits(vectors, tiny.encode(iter(TEXTS)))


@pytest.mark.usefixtures("small_pieces")
def test_texts_that_only_the_calling_thread_may_read(tiny: Bert, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "texts.db") as database:
        database.execute("create table texts (text)")
        database.executemany("insert into texts values (?)", [(text,) for text in TEXTS])
        rows = database.execute("select text from texts order by rowid")
        assert_same_bits(tiny.encode(text for (text,) in rows), tiny.encode(TEXTS))
    database.close()


@pytest.mark.usefixtures("small_pieces")
def test_texts_that_were_cut_are_counted_over_all_pieces(tiny: Bert) -> None:
    texts = [*TEXTS, "cat " * 30, *TEXTS, "dog " * 50]
    with pytest.warns(UserWarning, match="2 of 58 texts have more than 24 tokens and were cut"):
        tiny.encode(texts, batch_tokens=40)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(
    ("texts", "error"),
    [([*TEXTS, None], TypeError), ([*TEXTS, "caf\udce9"], ValueError)],
)
def test_a_wrong_text_late(tiny: Bert, texts: list[Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        tiny.encode(texts, batch_tokens=20)
    with pytest.raises(error):
        tiny.encode(iter(texts), batch_tokens=20)


@pytest.mark.usefixtures("small_pieces")
def test_a_tokenizer_that_fails_in_its_thread(tiny: Bert, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def failing(tokenizer: Any, piece: list[str]) -> tokenized.Tokenized:
        calls.append(threading.current_thread())
        if len(calls) == 4:
            raise MemoryError("no room for tokens")
        return tokenized.tokenized_piece(tokenizer, piece)

    monkeypatch.setattr(text_encoder, "tokenized_piece", failing)
    with pytest.raises(MemoryError, match="no room for tokens"):
        tiny.encode(TEXTS, batch_tokens=20)
    assert calls[-1] is not threading.current_thread()


@pytest.mark.usefixtures("small_pieces")
def test_an_error_of_the_computation(tiny: Bert, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*arguments: object) -> None:
        raise MemoryError("no room for states")

    monkeypatch.setattr(tiny, "_hidden", failing)
    with pytest.raises(MemoryError, match="no room for states"):
        tiny.encode(TEXTS, batch_tokens=20)


@pytest.mark.usefixtures("small_pieces")
def test_ctrl_c(tiny: Bert) -> None:
    calls = []

    def press(count: int) -> None:
        calls.append(count)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        tiny.encode(TEXTS, batch_tokens=20, progress=press)
    assert len(calls) == 2
    assert_same_bits(tiny.encode(TEXTS), tiny.encode(TEXTS, batch_tokens=20))


def test_ctrl_c_while_the_tokenizer_is_waited_for() -> None:
    def work(thing: int) -> int:
        if thing == 1:
            os.kill(os.getpid(), signal.SIGINT)
            released.wait(30)
        return thing

    released = threading.Event()
    with pytest.raises(KeyboardInterrupt):
        try:
            [*one_ahead(work, range(3))]
        finally:
            released.set()
            for thread in threading.enumerate():
                if thread.name == "numattn ahead":
                    thread.join()


def test_a_fork_in_the_middle(bert_folder: Path) -> None:
    """The child has no thread but its own, and goes on with the call."""
    script = """
        import os, sys
        import numpy as np
        from numattn.models import Bert
        from numattn.models.encoder import tokenized
        tokenized.PIECE_TEXTS = 3
        model = Bert.from_folder(sys.argv[1])
        texts = ["the cat sat on the mat", "a dog", "", "it was tired ."] * 5
        expected = model.encode(texts)
        children = []

        def fork(count):
            if 0 not in children:
                children.append(os.fork())

        vectors = model.encode(texts, batch_tokens=12, progress=fork)
        same = np.array_equal(vectors, expected)
        if 0 in children:
            os._exit(0 if same else 3)
        codes = {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children}
        print(same, len(children) > 3, codes)
    """
    assert output_of(script, str(bert_folder)).strip() == "True True {0}"


def test_texts_take_no_memory_but_for_their_vectors(tiny: Bert) -> None:
    peaks = []
    tiny.encode(TEXTS)
    for count in (8, 40):
        tracemalloc.start()
        vectors = tiny.encode("the cat sat on the mat" for _ in range(count * 256))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    own = vectors.itemsize * vectors.shape[1]
    # Room for vectors of texts whose number is not known grows by half, and is then both old and
    # new for a moment.
    assert peaks[1] - peaks[0] <= 2.5 * own * 40 * 256
