"""python -m numattn.compat.onnxruntime in.onnx out.onnx: a model with numattn's operators."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from numattn.compat.onnxruntime import library_path, rewrite
from numattn.compat.onnxruntime.rewriting import MOST_BYTES


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite a file; say what was replaced, and what was left."""
    parser = argparse.ArgumentParser(
        prog="python -m numattn.compat.onnxruntime", description=(__doc__ or "").split(": ")[1]
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args(arguments)
    try:
        import onnx

        model = onnx.load(options.model)
    except (ImportError, OSError) as error:
        parser.error(str(error))
    try:
        rewritten = rewrite(model)
    except ValueError as error:
        parser.error(f"{options.model}: {error}")
    large = rewritten.model.ByteSize() >= MOST_BYTES
    onnx.save(rewritten.model, options.out, save_as_external_data=large)
    for operator, count in rewritten.replaced.items():
        print(f"{count} of {operator} replaced")
    for words in rewritten.left:
        print(f"left: {words}")
    print(f"{options.out} needs register_custom_ops_library({library_path()!r})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
