"""`na.approx.nystrom` in the place of attention in transformers' Nystromformer layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from numattn import approx

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

HEADS, DIM, LENGTH = 4, 16, 128


@pytest.mark.parametrize("landmarks", [8, 32, LENGTH])
@pytest.mark.parametrize("kernel", [None, 7])
@pytest.mark.parametrize("option", ["original", "exact"])
def test_nystromformer(
    isa: str, rng: np.random.Generator, landmarks: int, kernel: int | None, option: str
) -> None:
    from transformers.models.nystromformer.modeling_nystromformer import (
        NystromformerConfig,
        NystromformerSelfAttention,
    )

    width = HEADS * DIM
    config = NystromformerConfig(
        hidden_size=width, num_attention_heads=HEADS, num_landmarks=landmarks,
        segment_means_seq_len=LENGTH, conv_kernel_size=kernel or 7,
    )  # fmt: skip
    module = NystromformerSelfAttention(config).eval()
    module.init_option, module.conv_kernel_size = option, kernel
    x = rng.standard_normal((2, LENGTH, width), dtype=np.float32)
    with torch.no_grad():
        for parameter in module.parameters():
            filled = rng.standard_normal(tuple(parameter.shape), dtype=np.float32) / np.sqrt(width)
            parameter.copy_(torch.from_numpy(filled))
        expected = module.double()(torch.from_numpy(x).double())[0].numpy()
        layers = (module.query, module.key, module.value)
        heads = [
            layer(torch.from_numpy(x).double()).float().numpy().reshape(2, LENGTH, HEADS, DIM)
            for layer in layers
        ]
        initial: Any = {"original": "batch", "exact": "matrix"}[option]
        o = approx.nystrom(*heads, landmarks, initial=initial, layout="bshd")
        if kernel is not None:  # which belongs to the layer
            values = torch.from_numpy(heads[2]).permute(0, 2, 1, 3).double()
            o = o + module.conv(values).permute(0, 2, 1, 3).numpy()
    got = o.reshape(2, LENGTH, width)
    assert np.linalg.norm(got - expected) <= 1e-5 * np.linalg.norm(expected)
