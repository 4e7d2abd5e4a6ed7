"""The config.json of a model: its family, and what makes another model of it than its class does.

auto_map names classes of the folder's own (foreign_code.py). quantization_config and
compression_config tell of numbers that stand for others. dtype, torch_dtype: how weights are to be
stored, which changes nothing here unless it is no kind of float that is read. transformers_weights
names another file of weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .family import family_of
from .foreign_code import refuse_foreign_code
from .settings import Settings, shown

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
FLOATS = ("float32", "float", "float16", "half", "bfloat16", "float64", "double", "auto")


def read_model_config(
    path: Path, families: Mapping[str, str], quantised: Mapping[str, str] | None = None
) -> tuple[Settings, str]:
    """Return the settings of a config.json, and its model_type.

    Parameters
    ----------
    path : Path
        The file.
    families : mapping of str to str
        Each model_type that is carried out → what the names of its classes in transformers begin
        with.
    quantised : mapping of str to str, optional
        A model_type → the quant_method of weights that are read.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not JSON, or names another family, or code or weights that are not read.
    """
    settings = Settings.from_file(path)
    family = family_of(settings, families)
    refuse_foreign_code(settings, (families[family],))
    method = (quantised or {}).get(family)
    read = method is not None and settings.part("quantization_config").get("quant_method") == method
    for name in ("quantization_config", "compression_config"):
        if settings.get(name) and not (read and name == "quantization_config"):
            raise ValueError(
                f"{path}: {name} {shown(settings.get(name))} is not supported: quantised weights "
                "are not read (transformers' dequantize() makes them floats again)"
            )
    for name in ("dtype", "torch_dtype"):
        kind = settings.get(name, "auto")
        if not isinstance(kind, str) or kind.removeprefix("torch.") not in FLOATS:
            raise ValueError(f"{path}: {name} {shown(kind)} is not supported")
    settings.one_of("transformers_weights", WEIGHTS, WEIGHTS[0])
    return settings, family
