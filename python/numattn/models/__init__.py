"""Small NumPy models on numattn's public API.

They need the libraries safetensors and tokenizers; importing this module does not.
"""

from __future__ import annotations

from .bert import Bert
from .installed import installed_folder

__all__ = ["Bert", "installed_folder"]
