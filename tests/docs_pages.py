"""What the Python of pages of docs/ finds there when it runs: tiny models for the folders it loads.

A page that is not here is run with nothing prepared.
"""

from __future__ import annotations

import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import numattn as na

Names = dict[str, Any]

CHAT = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant]"
