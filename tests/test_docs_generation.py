"""The Python of docs/generation.md runs as it stands, block after block, with a tiny model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from numattn.models import Sampler
from tiny_tokenizers import text_model

PAGE = Path(__file__).resolve().parent.parent / "docs" / "generation.md"
TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant]"


def test_every_block_runs(tmp_path: Path) -> None:
    model = text_model(tmp_path, tokenizer_config={"chat_template": TEMPLATE})
    names: dict[str, Any] = {
        "model": model, "small": model, "Sampler": Sampler, "token": 70, "prompt": "the cat",
        "system": {"role": "system", "content": "be"},
        "question": {"role": "user", "content": "the cat"},
        "another": {"role": "user", "content": "the dog"},
    }  # fmt: skip
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) >= 6
    for block in blocks:
        exec(compile(block.replace("tools=[...]", "tools=[]"), str(PAGE), "exec"), names)
    assert names["written"].text and names["prefixes"].reused > 0
