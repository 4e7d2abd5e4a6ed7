"""`numattn generate`: texts and chats, printed as they come."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path
from typing import Any

import pytest

from command_line import command, refused
from numattn.cli import main
from numattn.models import Llama, Sampler
from tiny_bert import write_folder as write_encoder
from tiny_tokenizers import write_text_folder

TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant]"
MOST = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_folder(
        tmp_path_factory.mktemp("model"), tokenizer_config={"chat_template": TEMPLATE}
    )


@pytest.fixture(scope="module")
def model(folder: Path) -> Llama:
    return Llama.from_folder(folder)


def printed(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: object) -> str:
    """Run the command and return what it prints."""
    options = ("--model", str(folder), "--max-tokens", str(MOST))
    assert main(["generate", *options, *map(str, arguments)]) == 0
    got = capsys.readouterr()
    assert got.err == ""
    return got.out


def with_end(text: str) -> str:
    return text if text.endswith("\n") else text + "\n"


def test_a_text_is_continued(
    capsys: pytest.CaptureFixture[str], folder: Path, model: Llama
) -> None:
    text = model.generate_text("the cat", MOST).text
    assert printed(capsys, folder, "the cat") == with_end(text)
    assert printed(capsys, folder, "the cat", "--draft", 3) == with_end(text)
    assert printed(capsys, folder, "the cat", "--draft", folder) == with_end(text)
    stop = text[9:11]
    stopped = with_end(text[: text.index(stop)])
    assert printed(capsys, folder, "the cat", "--stop", "no such", "--stop", stop) == stopped


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["--temperature", "1.5", "--seed", "3"], {"temperature": 1.5, "seed": 3}),
        (
            ["--temperature", "2", "--top-k", "9", "--top-p", "0.9", "--min-p", "0.01",
             "--seed", "1"],
            {"temperature": 2, "top_k": 9, "top_p": 0.9, "min_p": 0.01, "seed": 1},
        ),
        (["--repetition-penalty", "1.5"], {"temperature": 0, "repetition_penalty": 1.5}),
    ],
)  # fmt: skip
def test_tokens_are_chosen_as_asked(
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    model: Llama,
    arguments: list[str],
    options: dict[str, Any],
) -> None:
    text = model.generate_text("the cat", MOST, sampler=Sampler(**options)).text
    assert printed(capsys, folder, "the cat", *arguments) == with_end(text)
    assert text != model.generate_text("the cat", MOST).text


def test_tokens_are_chosen_as_the_folder_says(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = {"do_sample": True, "temperature": 1.4, "top_p": 0.95}
    model = Llama.from_folder(write_text_folder(tmp_path, generation_config=config))
    sampler = Sampler(temperature=1.4, top_k=50, top_p=0.5, seed=2)
    text = model.generate_text("the cat", MOST, sampler=sampler).text
    assert printed(capsys, tmp_path, "the cat", "--top-p", 0.5, "--seed", 2) == with_end(text)
    greedy = model.generate_text("the cat", MOST).text
    assert printed(capsys, tmp_path, "the cat", "--temperature", 0) == with_end(greedy) != text


@pytest.mark.parametrize("prompt", [[], ["-"]])
def test_standard_input_is_a_text(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    model: Llama,
    prompt: list[str],
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("the cat\nsat\n"))
    text = model.generate_text("the cat\nsat", MOST).text
    assert printed(capsys, folder, *prompt) == with_end(text)


def test_a_message_is_answered(
    capsys: pytest.CaptureFixture[str], folder: Path, model: Llama
) -> None:
    chat = [{"role": "system", "content": "be"}, {"role": "user", "content": "the cat"}]
    text = model.generate_text(chat, MOST).text
    assert printed(capsys, folder, "--chat", "--system", "be", "the cat") == with_end(text)


def test_a_chat_goes_on_line_by_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    model: Llama,
) -> None:
    said = ["the cat", "a dog", "that"]
    chat: list[dict[str, str]] = []
    expected = ""
    for text in said:
        chat.append({"role": "user", "content": text})
        chat.append({"role": "assistant", "content": model.generate_text(chat, MOST).text})
        expected += with_end(chat[-1]["content"])
    monkeypatch.setattr("sys.stdin", io.StringIO("the cat\n\na dog\nthat"))
    assert printed(capsys, folder, "--chat") == expected
    # Of pages that are too few for what has been said, more are taken.
    monkeypatch.setattr("numattn.cli.generate.CHAT_TOKENS", 16)
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(said)))
    assert printed(capsys, folder, "--chat") == expected


def test_as_a_process(folder: Path, model: Llama) -> None:
    ran = subprocess.run(
        command("generate", "--model", folder, "--max-tokens", MOST, "--threads", 1),
        input="the cat", capture_output=True, encoding="utf-8", timeout=60,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == with_end(model.generate_text("the cat", MOST).text)


def test_what_is_refused(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    tmp_path: Path,
) -> None:
    run = ("generate", "--model", folder)
    assert "--model" in refused(capsys, "generate", "a")
    assert "--system is for --chat" in refused(capsys, *run, "a", "--system", "b")
    assert "must be a whole number from 1 on" in refused(capsys, *run, "a", "--max-tokens", 0)
    assert "temperature must be 0 or more" in refused(capsys, *run, "a", "--temperature", -1)
    assert "min_p must be 0 … 1, not 2.0" in refused(capsys, *run, "a", "--min-p", 2)
    assert "a string of stop is empty" in refused(capsys, *run, "a", "--stop", "")
    assert "tokens must be 1 or more, not 0" in refused(capsys, *run, "a", "--draft", 0)
    assert "no folder" in refused(capsys, *run, "a", "--draft", tmp_path / "nothing")
    assert "prompt 0 is empty" in refused(capsys, *run, "")
    encoder = write_encoder(tmp_path / "encoder")
    message = refused(capsys, "generate", "--model", encoder, "a")
    assert "holds a Bert, which writes no text" in message
    plain = write_text_folder(tmp_path / "plain")
    message = refused(capsys, "generate", "--model", plain, "--chat", "a")
    assert "the model has no chat template: give a prompt" in message
    (plain / "tokenizer.json").unlink()
    assert "no tokenizer.json in" in refused(capsys, "generate", "--model", plain, "a")
    for more in ((), ("--chat",)):
        for encoding in ("utf-8", "latin-1"):  # of the locale
            stdin = io.TextIOWrapper(io.BytesIO(b"\xff"), encoding=encoding)
            monkeypatch.setattr("sys.stdin", stdin)
            assert "standard input is not UTF-8" in refused(capsys, *run, *more)
