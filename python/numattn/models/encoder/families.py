"""The encoders by the families that they carry out."""

from __future__ import annotations

from pathlib import Path

from ..files.family import family_of
from ..files.settings import Settings
from .albert import Albert
from .bert import Bert
from .distilbert import DistilBert
from .electra import Electra
from .encoder import Encoder
from .gte import Gte
from .modernbert import ModernBert
from .mpnet import MPNet
from .nomic import NomicBert

ENCODERS: tuple[type[Encoder], ...] = (
    Albert, Bert, DistilBert, Electra, Gte, ModernBert, MPNet, NomicBert
)  # fmt: skip


def encoder_of(path: Path) -> type[Encoder]:
    """Return the class of encoders that carries out the family of a config.json.

    Raises
    ------
    ValueError
        If none does.
    """
    classes = {family: each for each in ENCODERS for family in each.FAMILIES}
    return classes[family_of(Settings.from_file(path), classes)]
