"""pytorch_model.bin and *.pt: read without torch, and nothing in them is run."""

from __future__ import annotations

import json
import pickle
import struct
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_decoders
import torch_files
from numattn.models import Bert
from numattn.models.files.checkpoint import Checkpoint
from tiny_bert import CONFIG, SENTENCES, tensors_of, write_folder
from tolerance import assert_same_bits
from torch_files import name, number, numbers, program, storage, tensor, text, write, write_parts

ONE = np.arange(6, dtype=np.float32).reshape(2, 3)


def folder_of_weights(folder: Path, tensors: dict[str, Any]) -> Path:
    write_folder(folder)
    (folder / "model.safetensors").unlink()
    write(folder / "pytorch_model.bin", tensors)
    return folder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pytorch_model.bin"


def taken(path: Path, shape: tuple[int, ...] = (2, 3)) -> Any:
    return Checkpoint(path, "w").take("w", shape)


def test_a_folder_of_pytorch_s_is_that_of_safetensors(tmp_path: Path) -> None:
    tensors = tensors_of(CONFIG)
    plain = Bert.from_folder(write_folder(tmp_path / "plain", tensors=tensors))
    other = Bert.from_folder(folder_of_weights(tmp_path / "other", tensors))
    assert_same_bits(other.encode(SENTENCES), plain.encode(SENTENCES))


def test_shards(tmp_path: Path) -> None:
    tensors = tensors_of(CONFIG)
    plain = Bert.from_folder(write_folder(tmp_path, tensors=tensors)).encode(SENTENCES)
    (tmp_path / "model.safetensors").unlink()
    names = sorted(tensors)
    halves = {"a.bin": names[:10], "b.bin": names[10:]}
    for file, part in halves.items():
        write(tmp_path / file, {key: tensors[key] for key in part})
    index = {"weight_map": {key: file for file, part in halves.items() for key in part}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert_same_bits(Bert.from_folder(tmp_path).encode(SENTENCES), plain)


def test_a_decoder_s_folder(tmp_path: Path) -> None:
    folder = tiny_decoders.write_folder(tmp_path)
    plain = tiny_decoders.load(folder, "llama")([[1, 2, 3]])
    (folder / "model.safetensors").unlink()
    write(folder / "model.pt", tiny_decoders.tensors_of(tiny_decoders.config_of("llama")))
    assert_same_bits(tiny_decoders.load(folder, "llama")([[1, 2, 3]]), plain)


def test_safetensors_come_first(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    (folder / "pytorch_model.bin").write_bytes(b"nothing")
    Bert.from_folder(folder)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (ONE, ONE),
        (ONE.astype(np.float64), ONE),
        (ONE.astype(np.float16), ONE),
        (torch_files.bfloat16(ONE), ONE),
        (np.zeros((2, 0, 3), np.float32), np.zeros((2, 0, 3))),
    ],
)
def test_dtypes(path: Path, stored: Any, expected: Any) -> None:
    np.testing.assert_array_equal(taken(write(path, {"w": stored}), expected.shape), expected)


def test_integers_are_no_weights(path: Path) -> None:
    write(path, {"w": ONE, "ids": np.arange(3)})
    with pytest.raises(ValueError, match=r"tensor ids in .*\.bin is I64; BF16, F16"):
        Checkpoint(path, "w").take("ids", (3,))


def test_tensors_that_share_a_storage(path: Path) -> None:
    items = {
        "w": tensor("FloatStorage", "0", 6, 0, (2, 3), (3, 1)),
        "tied": tensor("FloatStorage", "0", 6, 3, (1, 3), (7, 1)),
    }
    write_parts(path, program(items), {"0": ONE.tobytes()})
    checkpoint = Checkpoint(path, "w")
    np.testing.assert_array_equal(checkpoint.take("w", (2, 3)), ONE)
    np.testing.assert_array_equal(checkpoint.take("tied", (1, 3)), ONE[1:])


@pytest.mark.parametrize("part", ["state_dict", "model_state_dict", "model"])
def test_a_file_with_more_than_weights(path: Path, part: str) -> None:
    inner = program({"w": tensor("FloatStorage", "0", 6, 0, (2, 3), (3, 1))})[2:-1]
    write_parts(path, program({part: inner, "epoch": number(3)}), {"0": ONE.tobytes()})
    np.testing.assert_array_equal(taken(path), ONE)


def ran(*_: Any) -> None:
    raise AssertionError("something was called")


class Hostile:
    def __reduce__(self) -> Any:
        return ran, ("a",)


def nested(depth: int) -> bytes:
    """A tuple of twice the same tuple, and so on: small, but to hash or show it takes for ever."""
    body = b")q\x00"
    for _ in range(depth):
        body += b"h\x00h\x00\x86q\x00"
    return body


WHOLE = ("FloatStorage", "0", 6, 0, (2, 3), (3, 1))


def changed(**changes: Any) -> bytes:
    names = ("kind", "key", "count", "start", "shape", "strides")
    parts = {**dict(zip(names, WHOLE, strict=True)), **changes}
    return program({"w": tensor(*(parts[key] for key in names))})


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (pickle.dumps(Hostile(), 2), r"asks for '.*test_torch_file\.ran'.*imported or called"),
        (pickle.dumps(Hostile(), 4), r"asks for '.*test_torch_file\.ran'"),
        (pickle.dumps({"w": Hostile()}, 0), r"its instruction \w+ is none that tensors need"),
        (pickle.dumps(OrderedDict, 2)[:-1] + b"}R.", "calls something without arguments"),
        (program({"w": name("os", "system")}), r"asks for 'os\.system'"),
        (program({"w": name("builtins", "eval") + text("1") + b"\x85R"}), r"'builtins\.eval'"),
        (program({"w": name("torch", "load")}), r"asks for 'torch\.load'"),
        (program({"w": name("torch", "FloatStorage") + b")R"}), "calls F32 by no arguments"),
        (program({"w": b"\x82\x01"}), "its instruction EXT1 is none"),
        (b"\x80\x02cos\nsystem\n)\x81.", r"asks for 'os\.system'"),
        (b"\x80\x02)}\x81.", "its instruction NEWOBJ is none"),
        (b"\x80\x02" + nested(90) + b"}h\x00Ns.", "has a tuple for a key"),
        (b"\x80\x02" + nested(90) + b"}" + text("w") + b"h\x00s.", "is damaged"),
        (b"\x80\x02" + nested(90) + b"h\x00Q.", "refers to something outside"),
        (b"\x80\x02" + b"(" * 200_000 + b"t.", "is damaged|does not hold tensors"),
        (b"\x80\x02u.", "takes what is not there"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", "does not hold tensors"),
        (b"\x80\x02h\x07.", "is damaged"),
        (b"\x80\x02}", "is damaged|has no end"),
        (b"\x80\x02}}.", "is damaged"),
        (b"", "is damaged|has no end"),
        (b"\x80\x02}.", "does not hold tensors by their names"),
        (program({"w": number(3)}), "does not hold tensors by their names"),
        (program({"w": tensor(*WHOLE), "n": number(3)}), "and nothing else"),
        (changed(kind="QInt8Storage"), r"asks for 'torch\.QInt8Storage'"),
        (changed(count=7), "storage 0 has 24 bytes, but should hold 7 numbers of F32"),
        (changed(kind="DoubleStorage"), "storage 0 has 24 bytes, but should hold 6 numbers of F64"),
        (changed(key="1"), "has no entry data/1"),
        (changed(key="../../x"), "has a storage of no name"),
        (changed(start=1), "tensor w reaches beyond its storage"),
        (changed(shape=(3, 3)), "tensor w reaches beyond its storage"),
        (changed(shape=(1 << 40, 1 << 40)), "tensor w reaches beyond its storage"),
        (changed(shape=(-2, 3)), "has a size that is none"),
        (changed(start=-1), "has a size that is none"),
        (changed(strides=(1, 2)), r"tensor w does not lie row after row \(strides \(1, 2\)\)"),
        (changed(strides=(0, 0)), "does not lie row after row"),
        (changed(strides=(1,)), "has not as many strides as dimensions"),
        (changed(shape=(1,) * 9, strides=(1,) * 9), "has a shape that is none"),
    ],
)  # fmt: skip
def test_a_pickle_that_is_refused(path: Path, pickled: bytes, message: str) -> None:
    write_parts(path, pickled, {"0": ONE.tobytes()})
    start = time.perf_counter()
    with pytest.raises(ValueError, match=message) as error:
        taken(path)
    assert str(path) in str(error.value) and len(str(error.value)) < 500
    assert time.perf_counter() - start < 5


def test_storages_and_arguments_of_other_kinds(path: Path) -> None:
    odd = [
        b"(" + text("module") + number(1) + b"tQ",
        b"(" + text("storage") + text("F32") + text("0") + text("cpu") + number(6) + b"tQ",
        b"(" + text("storage") + name("torch", "FloatStorage") + number(0) + text("cpu")
        + number(6) + b"tQ",
        name("torch._utils", "_rebuild_tensor_v2") + b"(" + storage("FloatStorage", "0", 6) + b"tR",
        name("torch._utils", "_rebuild_tensor_v2") + b"(" + b"N" * 6 + b"tR",
        name("torch._utils", "_rebuild_parameter") + b"(" + number(1) + b"tR",
        name("torch._utils", "_rebuild_tensor_v2") + b"(" + storage("FloatStorage", "0", 6)
        + number(0) + b"]" + numbers((3, 1)) + b"\x89NtR",
    ]  # fmt: skip
    for made in odd:
        write_parts(path, program({"w": made}), {"0": ONE.tobytes()})
        with pytest.raises(ValueError, match="the pickle in .* is not read"):
            taken(path)


def rewritten(path: Path, change: Callable[[bytearray], bytes | bytearray]) -> None:
    write(path, {"w": ONE})
    path.write_bytes(change(bytearray(path.read_bytes())))


@pytest.mark.parametrize("left", [0, 1, 30, 100, 300, -1, -22])
def test_a_file_that_is_cut(path: Path, left: int) -> None:
    rewritten(path, lambda data: data[:left])
    with pytest.raises(ValueError, match=r"pytorch_model\.bin"):
        taken(path)


def test_damage_anywhere_is_an_error_of_value(path: Path) -> None:
    """Or none: a bit of a number, of a time or of an attribute changes what nobody reads."""
    write(path, {"w": ONE})
    whole = path.read_bytes()
    rng = np.random.default_rng(5)
    refused = 0
    for _ in range(400):
        data = bytearray(whole)
        for place in rng.integers(len(data), size=3):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        try:
            taken(path)
        except ValueError as error:
            refused += 1
            assert len(str(error)) < 1000
    assert refused > 200


def test_a_compressed_entry(path: Path) -> None:
    items = {"w": tensor(*WHOLE)}
    write_parts(path, program(items), {"0": ONE.tobytes()}, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match=r"its entry byteorder is compressed"):
        taken(path)


def test_a_bomb_is_not_unpacked(path: Path) -> None:
    """64 MiB of zeros in 64 KiB; that it is compressed is enough."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", changed(count=1 << 24, shape=(1 << 24,), strides=(1,)))
        file.writestr("archive/data/0", bytes(1 << 26), zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="its entry data/0 is compressed"):
        taken(path, (1 << 24,))


def test_an_entry_that_claims_more_than_the_file_has(path: Path) -> None:
    write_parts(path, changed(count=1 << 28, shape=(1 << 28,), strides=(1,)), {"0": ONE.tobytes()})
    data = bytearray(path.read_bytes())
    place = data.rindex(b"PK\x01\x02", 0, data.rindex(b"archive/data/0"))
    data[place + 20 : place + 28] = struct.pack("<II", 1 << 30, 1 << 30)
    path.write_bytes(data)
    with pytest.raises(ValueError, match="shorter than its entries|not a file of PyTorch"):
        taken(path, (1 << 28,))


def test_a_long_pickle(path: Path) -> None:
    write_parts(path, b"\x80\x02" + b"N" * (17 << 20) + b".", {})
    with pytest.raises(ValueError, match=r"data\.pkl has \d+ bytes, more than"):
        taken(path)


def test_another_byte_order(path: Path) -> None:
    rewritten(path, lambda data: data.replace(b"little", b"biggggg"[:6]))
    with pytest.raises(ValueError, match="machine of another byte order"):
        taken(path)


def test_what_is_no_archive(path: Path) -> None:
    path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2))
    with pytest.raises(ValueError, match=r"not a file of PyTorch 1\.6 or later.*torch\.save"):
        taken(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", b"N.")
        file.writestr("b/data.pkl", b"N.")
    with pytest.raises(ValueError, match=r"has no data\.pkl, or several"):
        taken(path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_torch_writes(path: Path, protocol: int) -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Linear(3, 2).to(torch.bfloat16)
    torch.save(module.state_dict(), path, pickle_protocol=protocol)
    expected = module.weight.detach().float().numpy()
    np.testing.assert_array_equal(Checkpoint(path, "weight").take("weight", (2, 3)), expected)
    torch.save({"weight": module.weight, "half": module.weight[1:]}, path, pickle_protocol=protocol)
    checkpoint = Checkpoint(path, "weight")
    np.testing.assert_array_equal(checkpoint.take("half", (1, 3)), expected[1:])
    torch.save(module, path, pickle_protocol=protocol)
    with pytest.raises(ValueError, match="asks for 'torch.nn.modules.linear.Linear'"):
        Checkpoint(path, "weight")


def test_torch_reads_what_these_tests_write(path: Path) -> None:
    torch = pytest.importorskip("torch")
    back = torch.load(write(path, {"w": ONE}), weights_only=True)
    np.testing.assert_array_equal(back["w"].numpy(), ONE)
