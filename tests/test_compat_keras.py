"""numattn under Keras 3, backend by backend: each in a process of its own, since Keras has one."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap

import pytest

import numattn.compat.keras as nk

needs_keras = pytest.mark.skipif(
    importlib.util.find_spec("keras") is None, reason="Keras is not installed"
)

SCRIPT = """
    import numpy as np
    import keras
    import numattn.compat.keras as nk

    calls = []
    real = nk.attention
    nk.attention = lambda *arguments, **options: calls.append(1) or real(*arguments, **options)

    def computed(work):
        before = len(calls)
        return keras.ops.convert_to_numpy(work()), len(calls) - before

    def agree(work, by_numattn=1):
        nk.disable()
        expected, none = computed(work)
        nk.enable()
        assert nk.enabled() and none == 0
        found, some = computed(work)
        assert some == by_numattn, (some, by_numattn)
        assert np.abs(found - expected).max() <= 2e-6 * np.abs(expected).max()

    rng = np.random.default_rng(0)
    tensor = keras.ops.convert_to_tensor
    x, y = (tensor(rng.standard_normal((2, n, 32), np.float32)) for n in (5, 7))
    q = tensor(rng.standard_normal((2, 5, 4, 8), np.float32))
    shared = 4 if keras.backend.backend() == "numpy" else 2  # which has no grouped heads
    k = tensor(rng.standard_normal((2, 7, shared, 8), np.float32))
    seen = rng.random((2, 1, 5, 7)) > 0.4
    seen[..., 0] = True
    mask = tensor(seen)
    bias = tensor(rng.standard_normal((2, 4, 5, 7), np.float32))
    attend = keras.ops.dot_product_attention
    agree(lambda: attend(q, k, k))
    agree(lambda: attend(q, k, k, scale=0.3, is_causal=True))
    agree(lambda: attend(q, k, k, mask=mask))
    agree(lambda: attend(q, k, k, bias=bias))
    agree(lambda: attend(q, q, q, mask=mask[..., :5], is_causal=True))
"""
EAGER = """
    layers = [
        keras.layers.MultiHeadAttention(4, 8, flash_attention=False),
        keras.layers.GroupQueryAttention(8, 4, 2),
    ]
    for layer in layers:
        layer(x, y)
        for options in ({}, {"use_causal_mask": True}):
            agree(lambda: QUIET(lambda: layer(x, y, **options)))
"""
OTHERS = {
    "numpy": EAGER.replace("QUIET(lambda: layer(x, y, **options))", "layer(x, y, **options)"),
    "torch": """
    import torch

    def QUIET(work):
        with torch.no_grad():
            return work()
    """
    + EAGER
    + """
    wanted = q.clone().requires_grad_()
    agree(lambda: attend(wanted, k, k).detach(), by_numattn=0)
    attend(wanted, k, k).sum().backward()
    assert wanted.grad is not None
    """,
    "jax": """
    import jax

    QUIET = lambda work: work()
    """
    + EAGER
    + """
    agree(lambda: jax.jit(lambda q: attend(q, k, k))(q), by_numattn=0)
    agree(lambda: jax.grad(lambda q: attend(q, k, k).sum())(q) + attend(q, k, k) * 0)
    """,
}


@needs_keras
@pytest.mark.slow
@pytest.mark.parametrize("backend", OTHERS)
def test_keras_computes_by_numattn_where_it_can(backend: str) -> None:
    if backend != "numpy":
        pytest.importorskip(backend)
    script = textwrap.dedent(SCRIPT) + textwrap.dedent(OTHERS[backend])
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True,
        env={**os.environ, "KERAS_BACKEND": backend, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def test_without_keras_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras", None)
    monkeypatch.setitem(sys.modules, "keras.src", None)
    with pytest.raises(ImportError, match="needs Keras 3: pip install keras"):
        nk.enable()
    assert not nk.enabled()
