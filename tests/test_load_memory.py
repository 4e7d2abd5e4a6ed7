"""How much memory a model takes while it is loaded: hardly more than it keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tiny_bert
import tiny_decoders
from child import output_of

MEASURE = """
    import sys
    import ml_dtypes, safetensors, tokenizers
    from numattn import Linear, models

    def kilobytes(name):
        lines = open("/proc/self/status").read().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name))

    family, small, folder, dtype = sys.argv[1:]
    load = getattr(models, family).from_folder
    load(small, dtype=dtype)  # what is allocated once for all
    before = kilobytes("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")
    model = load(folder, dtype=dtype)
    print(kilobytes("VmHWM") - before)
"""


def bert(folder: Path, width: int, inner: int, stored: type) -> tuple[int, int]:
    """Write a folder, and return the numbers of all its tensors and of the largest projection."""
    config = {
        **tiny_bert.CONFIG,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": 4,
    }
    tensors = tiny_bert.tensors_of(config)
    tiny_bert.write_folder(folder, config, {k: v.astype(stored) for k, v in tensors.items()})
    return sum(x.size for x in tensors.values()), width * max(inner, 3 * width)


def llama(folder: Path, width: int, inner: int, stored: type) -> tuple[int, int]:
    config = {
        **tiny_decoders.LLAMA,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": 4,
        "num_key_value_heads": 4,
        "head_dim": width // 4,
    }
    tensors = tiny_decoders.tensors_of(config)
    tiny_decoders.write_folder(
        folder, "llama", config, {k: v.astype(stored) for k, v in tensors.items()}
    )
    return sum(x.size for x in tensors.values()), width * max(inner, 3 * width)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("stored", [np.float16, np.float32])
@pytest.mark.parametrize(("family", "write"), [("Bert", bert), ("Llama", llama)])
def test_the_peak(tmp_path: Path, family: str, write, stored: type, dtype: str) -> None:
    """All that stays, and the largest projection once more while it is packed.

    Two more of these are for holes that the allocator keeps between what stays, where the weights
    of smaller projections were.
    """
    write(tmp_path / "small", 32, 48, stored)
    count, largest = write(tmp_path / "large", 768, 3072, stored)
    size = 2 if dtype == "bfloat16" else 4
    script_arguments = (family, str(tmp_path / "small"), str(tmp_path / "large"), dtype)
    peak = 1024 * int(output_of(MEASURE, *script_arguments))
    assert peak < size * (count + 3 * largest)
    # A file of float32 held beside that would be more.
    assert size * 3 * largest < 4 * count / 2
