"""numattn.models.decoders, logits by logits against transformers with the same weights.

transformers computes in float64 (its angles excepted, which are float32 there too), and once more
in float32, which says how far from the former a float32 result may lie.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from numattn.models import Gpt, Llama
from tiny_decoders import FAMILIES, load, random_ids, write_folder

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

PROMPT, STEPS = 20, 64
LENGTHS = np.array([11, 4, 7])


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp(family), family)


@pytest.fixture(scope="module")
def ours(folder: Path, family: str) -> Gpt | Llama:
    return load(folder, family)


class Theirs:
    """The same folder in transformers, in float64 and in float32."""

    def __init__(self, folder: Path) -> None:
        def read(dtype: Any) -> Any:
            return transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, attn_implementation="eager", experts_implementation="eager"
            ).eval()

        self.exact, self.single = read(torch.float64), read(torch.float32)

    def check(self, got: NDArray[Any], ids: NDArray[Any], mask: NDArray[Any]) -> None:
        """Check logits at the tokens that are real; theirs are of each row alone."""

        def logits(model: Any) -> NDArray[Any]:
            with torch.no_grad():
                rows = [
                    model(torch.tensor(row[real])[np.newaxis]).logits[0].numpy()
                    for row, real in zip(ids, mask, strict=True)
                ]
            return np.concatenate(rows)

        exact, single = logits(self.exact), logits(self.single)
        assert got.dtype == np.float32
        error, theirs = np.linalg.norm(got[mask] - exact), np.linalg.norm(single - exact)
        assert error <= 2 * theirs, f"error {error:.3g}, and {theirs:.3g} in transformers' float32"


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Theirs:
    return Theirs(folder)


@pytest.mark.parametrize("side", ["right", "left"])
def test_padded_batches(
    ours: Gpt | Llama, theirs: Theirs, side: str, rng: np.random.Generator
) -> None:
    ids = random_ids(rng, 3, 11)
    mask = np.arange(11) < LENGTHS[:, np.newaxis]
    mask = mask[:, ::-1] if side == "left" else mask
    theirs.check(ours(ids, attention_mask=mask), ids, mask)


@pytest.mark.parametrize("kind", ["contiguous", "paged"])
@pytest.mark.parametrize("chunk", [PROMPT, 7])
def test_prefill_and_steps(
    ours: Gpt | Llama, theirs: Theirs, kind: str, chunk: int, rng: np.random.Generator
) -> None:
    ids = random_ids(rng, 2, PROMPT + STEPS)
    cache = ours.new_paged_cache(2, pages=24, page_size=8) if kind == "paged" else ours.new_cache(2)
    cuts = [*range(0, PROMPT, chunk), *range(PROMPT, PROMPT + STEPS + 1)]
    parts = [
        ours(ids[:, start:end], cache=cache) for start, end in zip(cuts, cuts[1:], strict=False)
    ]
    theirs.check(np.concatenate(parts, axis=1), ids, np.ones(ids.shape, dtype=bool))


def test_a_padded_batch_goes_on_step_by_step(
    ours: Gpt | Llama, theirs: Theirs, rng: np.random.Generator
) -> None:
    """Prompts padded on the left in a batch, and then steps, as `generate` takes them."""
    ids = random_ids(rng, 3, 11 + 8)
    mask = np.arange(19) >= (11 - LENGTHS)[:, np.newaxis]
    cache = ours.new_cache(3)
    parts = [ours(ids[:, :11], attention_mask=mask[:, :11], cache=cache)]
    parts += [ours(ids[:, column : column + 1], cache=cache) for column in range(11, 19)]
    theirs.check(np.concatenate(parts, axis=1), ids, mask)


def test_greedy_generation(ours: Gpt | Llama, theirs: Theirs, rng: np.random.Generator) -> None:
    """The two may differ where the two likeliest tokens are as likely to float32 accuracy only."""
    prompt = random_ids(rng, 1, 9)
    with torch.no_grad():
        expected = theirs.exact.generate(
            torch.tensor(prompt), attention_mask=torch.ones_like(torch.tensor(prompt)),
            max_new_tokens=30, do_sample=False, eos_token_id=None, pad_token_id=0,
        ).numpy()  # fmt: skip
    assert ours.generate(prompt.tolist(), 30) == expected[:, 9:].tolist()
