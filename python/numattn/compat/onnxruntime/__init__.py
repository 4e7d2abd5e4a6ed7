"""Operators for ONNX Runtime, and models rewritten to use them.

    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(numattn.compat.onnxruntime.library_path())

The operators are in the domain "numattn": Attention as in ai.onnx, opsets 23 to 25, and
MultiHeadAttention and GroupQueryAttention as in com.microsoft. `rewrite` puts them into a model.
"""

from __future__ import annotations

from pathlib import Path

from numattn.compat.onnxruntime.rewriting import Rewritten, rewrite

__all__ = ["Rewritten", "library_path", "rewrite"]


def library_path() -> str:
    """Return what ``onnxruntime.SessionOptions.register_custom_ops_library`` takes.

    ONNX Runtime 1.17 or later. The operators' loops run on the session's threads
    (``intra_op_num_threads``), on at most as many as `numattn.get_num_threads` says.

    Returns
    -------
    str

    Raises
    ------
    FileNotFoundError
        The package was built without the library.

    Examples
    --------
    >>> library_path().endswith("operators.so")
    True
    """
    path = Path(__file__).with_name("operators.so")
    if not path.is_file():
        raise FileNotFoundError(f"numattn was built without its operators for ONNX Runtime: {path}")
    return str(path)
