"""Files that commands write: special ones stay, links are followed, and nothing is half-written."""

from __future__ import annotations

import os
import pty
import stat
import subprocess
import sys
import threading
import tty
from pathlib import Path

import numpy as np
import pytest

from command_line import command, refused, run_script
from numattn.cli import main, whole_file
from numattn.models import Bert
from tiny_bert import write_folder

TEXTS = ["a cat", "a dog ran"]


def embed(bert_folder: Path, out: Path) -> int:
    return main(["embed", *TEXTS, "--out", str(out), "--model", str(bert_folder)])


def expected(bert: Bert) -> bytes:
    """Return the file that TEXTS become: a header, and numbers of the machine's own order."""
    vectors = bert.encode(TEXTS)
    header = str({"descr": "<f4", "fortran_order": False, "shape": vectors.shape}) + " "
    assert np.lib.format.magic(1, 0) == b"\x93NUMPY\x01\x00"
    header = header.replace(")}", "), }")
    header += " " * (-(10 + len(header) + 1) % 64) + "\n"
    length = len(header).to_bytes(2, "little")
    return b"\x93NUMPY\x01\x00" + length + header.encode() + vectors.tobytes()


def test_a_fifo_is_written_to(bert_folder: Path, bert: Bert, out: Path) -> None:
    os.mkfifo(out, 0o640)
    before = os.stat(out)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(out.read_bytes()))
    reader.start()
    assert embed(bert_folder, out) == 0
    reader.join()
    after = os.stat(out)
    assert stat.S_ISFIFO(after.st_mode)
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert os.listdir(out.parent) == [out.name]
    assert received == [expected(bert)]


def test_a_device_is_written_to(bert_folder: Path, bert: Bert) -> None:
    """A terminal of our own stands for all of them."""
    ours, theirs = pty.openpty()
    try:
        tty.setraw(theirs)
        path = Path(os.ttyname(theirs))
        before = os.stat(path)
        assert embed(bert_folder, path) == 0
        after = os.stat(path)
        assert stat.S_ISCHR(after.st_mode)
        assert (after.st_ino, after.st_rdev) == (before.st_ino, before.st_rdev)
        wanted, received = expected(bert), b""
        while len(received) < len(wanted):
            received += os.read(ours, 4096)
        assert received == wanted
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_picture_goes_into_a_fifo(bert_folder: Path, tmp_path: Path) -> None:
    for suffix, start in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF-")):
        fifo = tmp_path / f"map.{suffix}"
        os.mkfifo(fifo)
        received: list[bytes] = []
        reader = threading.Thread(
            target=lambda fifo=fifo, received=received: received.append(fifo.read_bytes())
        )
        reader.start()
        arguments = ["attend", "a cat sat", "--word", "cat", "--model", str(bert_folder)]
        assert main([*arguments, "--out", str(fifo)]) == 0
        reader.join()
        assert stat.S_ISFIFO(os.stat(fifo).st_mode)
        assert received[0].startswith(start)


def test_a_fifo_whose_reader_leaves_is_no_error(
    capsys: pytest.CaptureFixture[str], bert_folder: Path, out: Path, tmp_path: Path
) -> None:
    source = tmp_path / "lines.txt"
    source.write_text("a cat\n" * 2000)  # 256 KB of vectors, four times what a pipe holds
    os.mkfifo(out)
    reader = threading.Thread(target=lambda: os.close(os.open(out, os.O_RDONLY)))
    reader.start()
    arguments = ["embed", "--file", str(source), "--out", str(out), "--model", str(bert_folder)]
    assert main(arguments) == 1
    reader.join()
    assert capsys.readouterr() == ("", "")
    assert stat.S_ISFIFO(os.stat(out).st_mode)


@pytest.mark.parametrize(
    ("arguments", "start", "printed"),
    [
        (["embed", *TEXTS], b"\x93NUMPY", ": 2 × 32 float32"),
        (["attend", "a cat sat", "--word", "cat"], b"\x89PNG", " looks at"),
    ],
)
def test_what_is_printed_does_not_go_into_the_file(
    bert_folder: Path, tmp_path: Path, arguments: list[str], start: bytes, printed: str
) -> None:
    out = tmp_path / "out.png"
    os.mkfifo(out)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(out.read_bytes()))
    reader.start()
    with open(out, "wb") as stdout:
        process = subprocess.run(
            command(*arguments, "--out", out, "--model", bert_folder),
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    reader.join()
    assert process.returncode == 0
    assert process.stderr.splitlines()[0].endswith(printed)
    assert received[0].startswith(start) and printed.encode() not in received[0]


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("relative", [True, False])
def test_a_link_is_followed(
    bert_folder: Path, bert: Bert, out: Path, tmp_path: Path, exists: bool, relative: bool
) -> None:
    """What it leads to is replaced where that lies, and the link stays."""
    (tmp_path / "links").mkdir()
    first, second = tmp_path / "links" / "first.npy", tmp_path / "links" / "second.npy"
    destination = Path("..") / "out" / out.name if relative else out
    second.symlink_to(destination)
    first.symlink_to("second.npy")
    if exists:
        out.write_bytes(b"a former file")
        before = os.stat(out).st_ino
    assert embed(bert_folder, first) == 0
    assert os.readlink(first) == "second.npy" and os.readlink(second) == str(destination)
    assert not out.is_symlink() and out.read_bytes() == expected(bert)
    if exists:
        assert os.stat(out).st_ino != before  # it never stood there half-written
    assert sorted(os.listdir(tmp_path / "links")) == ["first.npy", "second.npy"]
    assert os.listdir(out.parent) == [out.name]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o755])
def test_the_mode_of_a_file_stays(bert_folder: Path, bert: Bert, out: Path, mode: int) -> None:
    out.write_bytes(b"a former file")
    out.chmod(mode)
    assert embed(bert_folder, out) == 0
    assert stat.S_IMODE(os.stat(out).st_mode) == mode
    assert out.read_bytes() == expected(bert)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_a_new_file_honours_the_umask(bert_folder: Path, out: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        assert embed(bert_folder, out) == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(out).st_mode) == mode


def test_the_mode_is_kept_while_it_is_written(tmp_path: Path) -> None:
    """What nobody may read is not readable under another name for a while."""
    path = tmp_path / "secret"
    path.write_bytes(b"a former file")
    path.chmod(0o600)
    with whole_file.whole_file(path) as file:
        (part,) = set(tmp_path.iterdir()) - {path}
        assert stat.S_IMODE(os.stat(part).st_mode) == 0o600
        file.write(b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_of_a_file_stays(bert_folder: Path, bert: Bert, out: Path) -> None:
    out.write_bytes(b"a former file")
    os.chown(out, 12345, 54321)
    out.chmod(0o4640)  # giving a file away clears the first bit
    assert embed(bert_folder, out) == 0
    state = os.stat(out)
    assert (state.st_uid, state.st_gid) == (12345, 54321)
    assert stat.S_IMODE(state.st_mode) == 0o4640
    assert out.read_bytes() == expected(bert)


def test_a_file_of_somebody_else_is_not_taken_over(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    bert_folder: Path,
    out: Path,
) -> None:
    out.write_bytes(b"a former file")
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(out).st_uid + 1)
    message = refused(capsys, "embed", "a", "--out", out, "--model", bert_folder)
    assert f"{out} has another owner or group" in message
    assert out.read_bytes() == b"a former file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_missing_permission_is_said(
    capsys: pytest.CaptureFixture[str], bert_folder: Path, out: Path
) -> None:
    out.write_bytes(b"a former file")
    out.chmod(0o400)
    message = refused(capsys, "embed", "a", "--out", out, "--model", bert_folder)
    assert f"{out} may not be written to" in message
    out.chmod(0o600)
    out.parent.chmod(0o500)
    message = refused(capsys, "embed", "a", "--out", out, "--model", bert_folder)
    out.parent.chmod(0o700)
    assert f"cannot write into {out.parent}" in message
    assert out.read_bytes() == b"a former file"


@pytest.mark.parametrize("by", ["name", "dots", "symbolic link", "hard link", "standard input"])
def test_the_file_that_is_read_is_not_written(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    bert_folder: Path,
    tmp_path: Path,
    by: str,
) -> None:
    source = tmp_path / "lines.txt"
    source.write_text("a cat\n")
    other = tmp_path / "other"
    out, named = other, str(source)
    if by == "name":
        out = source
    elif by == "dots":
        (tmp_path / "folder").mkdir()
        out = tmp_path / "folder" / ".." / "lines.txt"
    elif by == "symbolic link":
        other.symlink_to(source)
    elif by == "hard link":
        os.link(source, other)
    else:
        out, named = source, "-"
        monkeypatch.setattr(sys, "stdin", open(source))
    arguments = ("--file", named, "--out", out, "--model", bert_folder)
    message = refused(capsys, "embed", *arguments)
    name = "standard input" if by == "standard input" else source
    assert f"{out} is the same file as {name}, which is read" in message
    assert source.read_text() == "a cat\n"


def test_a_file_of_the_model_is_not_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "model")
    (tmp_path / "link.png").symlink_to(folder / "model.safetensors")
    before = (folder / "model.safetensors").read_bytes()
    arguments = ("--out", tmp_path / "link.png", "--model", folder)
    for words in (("embed", "a cat"), ("attend", "a cat", "--word", "cat")):
        assert "is the same file as" in refused(capsys, *words, *arguments)
    assert (folder / "model.safetensors").read_bytes() == before


def test_a_name_that_cannot_be_written_is_refused_before_the_model_is_read(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The folder given as the model's holds none, and that is not what is complained of."""
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to(Path("none") / "v.npy")
    (tmp_path / "file").touch()
    for out, message in [
        (tmp_path, f"{tmp_path} is a folder"),
        (tmp_path / "none" / "v.npy", f"no folder {tmp_path / 'none'}"),
        (tmp_path / "none" / ".." / "v.npy", f"no folder {tmp_path / 'none' / '..'}"),
        (tmp_path / "nowhere", f"no folder {tmp_path / 'none'}"),
        (tmp_path / "loop", "symbolic links"),
        (tmp_path / "file" / "v.npy", "Not a directory"),
        (tmp_path / ("n" * 300), "File name too long"),
    ]:
        given = refused(capsys, "embed", "a cat", "--out", out, "--model", tmp_path)
        assert message in given
    assert sorted(os.listdir(tmp_path)) == ["file", "loop", "nowhere"]


def test_a_name_as_long_as_names_can_be(bert_folder: Path, bert: Bert, out: Path) -> None:
    out = out.with_name("v" * 251 + ".npy")
    assert embed(bert_folder, out) == 0
    assert out.read_bytes() == expected(bert)


def test_a_full_disk_is_said_and_leaves_nothing(
    bert_folder: Path, out: Path, tmp_path: Path
) -> None:
    """A limit of a file's size stands for the disk's."""
    script = """
        import resource, sys
        from numattn.cli import main
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        sys.exit(main(sys.argv[1:]))
    """
    out.write_bytes(b"a former file")
    source = tmp_path / "lines.txt"
    source.write_text("a cat\n" * 2000)
    process = run_script(script, "embed", "--file", source, "--out", out, "--model", bert_folder)
    assert process.returncode == 2
    assert process.stderr.startswith("numattn embed: error: ")
    assert process.stderr.count("\n") == 1 and str(out) in process.stderr
    assert out.read_bytes() == b"a former file"
    assert os.listdir(out.parent) == [out.name]


def test_a_thread_writes_files_too(tmp_path: Path) -> None:
    """Only the first thread of Python handles signals."""

    def write() -> None:
        with whole_file.whole_file(tmp_path / "file") as file:
            file.write(b"new")

    thread = threading.Thread(target=write)
    thread.start()
    thread.join()
    assert (tmp_path / "file").read_bytes() == b"new"
