"""The models that a service has, by the names that clients call them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from .answer import Answer, json_answer
from .errors import ApiError
from .limits import Limits

if TYPE_CHECKING:
    from numattn.models import Bert, Gpt, Llama

    AnyModel: TypeAlias = "Bert | Gpt | Llama"

# Where a configuration says how long a text may be.
LENGTHS = ("max_position_embeddings", "n_positions")


@dataclass(frozen=True)
class Entry:
    """A model and its name."""

    name: str
    model: Any
    context: int
    """Tokens that a text may have."""
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def embeds(self) -> bool:
        """Return whether it makes vectors of texts; otherwise it writes texts."""
        return hasattr(self.model, "encode_tokens")

    @property
    def content(self) -> dict[str, Any]:
        """Return what the list of models says of it."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "numattn",
            "max_model_len": self.context,
        }


class Catalogue:
    """Models by their names.

    Parameters
    ----------
    entries : sequence of Entry

    Raises
    ------
    ValueError
        Two have the same name, or there is none.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = {entry.name: entry for entry in entries}
        if not entries:
            raise ValueError("there is no model to serve")
        if len(self.entries) < len(entries):
            names = [entry.name for entry in entries]
            raise ValueError(f"names of models must differ, not {names}: give NAME=FOLDER")

    @classmethod
    def load(cls, folders: Sequence[str], limits: Limits, dtype: str | None = None) -> Catalogue:
        """Load models, each a FOLDER that gives it its name, or NAME=FOLDER.

        Raises
        ------
        FileNotFoundError, ImportError, ValueError
            As the classes in `numattn.models` do; ValueError also for a name that comes twice.
        """
        entries = []
        for given in folders:
            name, folder = named(given)
            model = load_model(folder, dtype)
            entries.append(Entry(name, model, context_of(folder, model, limits)))
        return cls(entries)

    def find(self, name: str, *, embeds: bool) -> Entry:
        """Return a model that makes vectors, or one that writes texts, or raise ApiError."""
        entry = self.entries.get(name)
        if entry is None:
            raise ApiError(
                404,
                f"there is no model {name!r}; there are {[*self.entries]}",
                param="model",
                code="model_not_found",
            )
        if entry.embeds != embeds:
            does = "writes no text" if entry.embeds else "makes no embeddings"
            raise ApiError(400, f"the model {name!r} {does}", param="model")
        return entry

    def list_answer(self) -> Answer:
        """Return the answer to GET /v1/models."""
        data = [entry.content for entry in self.entries.values()]
        return json_answer({"object": "list", "data": data})

    def one_answer(self, name: str) -> Answer:
        """Return the answer to GET /v1/models/NAME."""
        if name not in self.entries:
            raise ApiError(404, f"there is no model {name!r}", code="model_not_found")
        return json_answer(self.entries[name].content)


def named(given: str) -> tuple[str, Path]:
    """Return the name and the folder of NAME=FOLDER, or of a FOLDER, whose own name it is then."""
    name, equals, place = given.partition("=")
    if equals and not Path(given).exists():
        folder = Path(place)
    else:
        folder = Path(given)
        name = folder.resolve().name
    if not name or not name.isprintable():
        raise ValueError(f"{given!r} gives no name for a model: give NAME=FOLDER")
    return name, folder


def load_model(folder: Path, dtype: str | None) -> AnyModel:
    """Return the model of a folder, with all that it needs of the folder read."""
    from numattn.models import load

    model = load(folder, dtype=dtype)
    if hasattr(model, "new_paged_cache"):
        # Read when first needed, they would be read by each process, and a fault found late.
        assert model.tokenizer is not None and model.end_tokens is not None
    elif not hasattr(model, "encode_tokens"):
        raise ValueError(f"{folder}: a {type(model).__name__} cannot be served")
    loaded: AnyModel = model
    return loaded


def configuration(folder: Path) -> dict[str, Any]:
    """Return what a folder's config.json holds, {} if there is none."""
    from numattn.models.files.json_file import read_json_object

    path = folder / "config.json"
    return read_json_object(path) if path.exists() else {}


def context_of(folder: Path, model: Any, limits: Limits) -> int:
    """Return how many tokens a text may have: of the model, and of the pages that there are."""
    if hasattr(model, "encode_tokens"):
        return int(model.max_tokens)
    config = configuration(folder)
    lengths = [config[name] for name in LENGTHS if isinstance(config.get(name), int)]
    return min([*map(int, lengths), limits.pages * limits.page_size])
