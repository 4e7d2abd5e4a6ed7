"""GPT-OSS' experts in MXFP4, as they are published: bit by bit the floats that they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from numattn.models.files.mxfp4 import dequantised
from tiny_decoders import config_of, load, random_ids, tensors_of, write_folder
from tolerance import assert_same_bits

SIZES = {"intermediate_size": 64}
QUANTISED = {**SIZES, "quantization_config": {"quant_method": "mxfp4"}}
DIGITS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def spelled_out(blocks: NDArray[np.uint8], scales: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the numbers of bytes (G, 16), one by one."""
    numbers = []
    for group, exponent in zip(blocks.tolist(), scales.tolist(), strict=True):
        for byte in group:
            for digit in (byte % 16, byte // 16):
                value = -DIGITS[digit - 8] if digit > 7 else DIGITS[digit]
                numbers.append(value * 2.0 ** (exponent - 127))
    return np.array(numbers, dtype=np.float32)


def both_ways(seed: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return tensors of a folder in MXFP4, and of one of floats."""
    rng = np.random.default_rng(seed)
    floats: dict[str, Any] = {**tensors_of({**config_of("gpt_oss"), **SIZES})}
    packed = dict(floats)
    for name in [name for name in floats if name.endswith(("gate_up_proj", "down_proj"))]:
        count, columns, rows = packed.pop(name).shape
        blocks = rng.integers(0, 256, (count, rows, columns // 32, 16), dtype=np.uint8)
        scales = rng.integers(122, 126, (count, rows, columns // 32), dtype=np.uint8)
        packed |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        whole = dequantised(blocks, scales)
        assert whole.shape == (count, rows, columns)
        floats[name] = np.ascontiguousarray(whole.swapaxes(1, 2))
    return packed, floats


def test_numbers(rng: np.random.Generator) -> None:
    """All bytes; and powers of two that make numbers small, large and infinite."""
    blocks = np.arange(256, dtype=np.uint8).reshape(16, 16)
    scales = np.array([0, 1, 100, 126, 127, 128, 200, 254] * 2, dtype=np.uint8)
    with np.errstate(over="ignore"):
        expected = spelled_out(blocks, scales)
    assert_same_bits(dequantised(blocks, scales), expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_a_folder(tmp_path: Path, dtype: str, rng: np.random.Generator) -> None:
    packed, floats = both_ways()
    model = load(write_folder(tmp_path / "a", "gpt_oss", QUANTISED, packed), "gpt_oss", dtype=dtype)
    other = load(write_folder(tmp_path / "b", "gpt_oss", SIZES, floats), "gpt_oss", dtype=dtype)
    ids = random_ids(rng, 2, 12)
    assert_same_bits(model(ids), other(ids))


def test_transformers_makes_the_same_floats(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    mxfp4 = pytest.importorskip("transformers.integrations.mxfp4")
    blocks = rng.integers(0, 256, (3, 10, 2, 16), dtype=np.uint8)
    scales = rng.integers(110, 135, (3, 10, 2), dtype=np.uint8)
    expected = mxfp4.convert_moe_packed_tensors(
        torch.tensor(blocks), torch.tensor(scales), dtype=torch.float32
    )
    assert_same_bits(dequantised(blocks, scales).swapaxes(1, 2), expected.numpy())


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        ({"quantization_config": {"quant_method": "fp8"}}, {}, "quantised weights are not read"),
        ({"compression_config": {"a": 1}}, {}, "compression_config .* is not supported"),
        ({}, {"down_proj_scales": None}, "has no tensor model.layers.0.mlp.experts.down_proj_scal"),
        ({}, {"down_proj_scales": np.zeros((5, 32, 3), np.uint8)}, r"has shape \(5, 32, 3\), but"),
        ({}, {"down_proj_scales": np.zeros((5, 32, 2), np.int8)}, "is I8; U8 are read"),
    ],
)
def test_what_is_refused(
    tmp_path: Path, config: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    tensors, _ = both_ways()
    for name, value in change.items():
        tensors[f"model.layers.0.mlp.experts.{name}"] = value
    tensors = {name: value for name, value in tensors.items() if value is not None}
    folder = write_folder(tmp_path, "gpt_oss", {**QUANTISED, **config}, tensors)
    with pytest.raises(ValueError, match=message):
        load(folder, "gpt_oss")


def test_rows_that_are_no_whole_blocks(tmp_path: Path) -> None:
    tensors, _ = both_ways()
    name = "model.layers.0.mlp.experts.gate_up_proj"
    tensors[f"{name}_bias"] = np.zeros((5, 80), np.float32)
    tensors[f"{name}_blocks"] = np.zeros((5, 80, 1, 16), np.uint8)
    tensors[f"{name}_scales"] = np.zeros((5, 80, 1), np.uint8)
    folder = write_folder(tmp_path, "gpt_oss", {**QUANTISED, "intermediate_size": 40}, tensors)
    with pytest.raises(ValueError, match="MXFP4 has blocks of 32 numbers, and .*down_proj rows of"):
        load(folder, "gpt_oss")


def test_other_families_are_refused(tmp_path: Path) -> None:
    config = {"quantization_config": {"quant_method": "mxfp4"}}
    with pytest.raises(ValueError, match="quantised weights are not read"):
        load(write_folder(tmp_path, "llama", config), "llama")
