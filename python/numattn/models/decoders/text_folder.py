"""What a decoder's folder says of text: its tokenizer, chat templates, and the tokens that end one.

    tokenizer.json                     the tokenizer, with what it puts before a text (BOS)
    tokenizer_config.json              names of special tokens; chat_template, one or several
    special_tokens_map.json            names of special tokens, in older folders
    chat_template.jinja, additional_chat_templates/*.jinja     templates, before those above
    generation_config.json, config.json      eos_token_id: of the first that is there
    generation_config.json             how tokens are chosen (sampler_defaults.py)

Each is read when it is first asked for: a model that is given ids needs none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..files.folder import regular_file
from ..files.foreign_code import refuse_foreign_code
from ..files.settings import Settings, shown
from ..files.tokens import load_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# What the names of transformers' own classes of tokenizers begin with, among those for decoders.
TOKENIZERS = (
    *("PreTrained", "Llama", "CodeLlama", "GPT2", "Qwen2", "Gemma", "Phi3", "Mistral", "Cohere"),
    *("GPTNeoX", "Granite", "Olmo", "SmolLM3"),
)
PARTS = ("tokenizer", "special_tokens", "templates", "end_tokens", "sampling")


class TextSource(Protocol):
    """What a decoder must be told to read and write text."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Text → ids with those that belong before it, and back; neither cuts nor pads."""

    @property
    def special_tokens(self) -> Mapping[str, str]:
        """Names as "bos_token" → what the tokens are written as."""

    @property
    def templates(self) -> Mapping[str, str]:
        """Names, "default" among them if there is one → Jinja templates of chats."""

    @property
    def end_tokens(self) -> frozenset[int]:
        """The tokens with which a text ends."""

    @property
    def sampling(self) -> Settings:
        """How tokens are chosen, as a generation_config.json says it."""


class TextFolder:
    """A folder's text, each part read when it is first asked for.

    Parameters
    ----------
    folder : Path
        The folder.

    Raises
    ------
    FileNotFoundError
        By a part: a file that it needs is missing.
    ImportError
        By `tokenizer`: the library tokenizers is not installed.
    ValueError
        By a part: a file is damaged, or says what is not supported.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getstate__(self) -> dict[str, Any]:
        """Return all parts that can be read: the folder may not be where this is unpickled."""
        for part in PARTS:
            try:
                getattr(self, part)
            except (ImportError, OSError, ValueError):
                continue  # it is said where it is needed
        return vars(self)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer, which neither cuts texts nor pads them.

        What it adds before a text is what its post-processor says. One without a post-processor
        obeys add_bos_token of tokenizer_config.json.
        """
        tokenizer = load_tokenizer(self.folder)
        settings = self._settings("tokenizer_config.json")
        refuse_foreign_code(settings, TOKENIZERS)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        if tokenizer.post_processor is None and settings.flag("add_bos_token", False):
            self._add_bos(tokenizer, settings)
        return tokenizer

    def _add_bos(self, tokenizer: Tokenizer, settings: Settings) -> None:
        from tokenizers.processors import TemplateProcessing

        token = self.special_tokens.get("bos_token")
        number = None if token is None else tokenizer.token_to_id(token)
        if token is None or number is None:
            raise ValueError(
                f"{settings.path}: add_bos_token is true, and bos_token {shown(token)} is no token"
            )
        tokenizer.post_processor = TemplateProcessing(
            single=[token, "$A"], special_tokens=[(token, number)]
        )

    @cached_property
    def special_tokens(self) -> dict[str, str]:
        """Return what special tokens are written as, by their names."""
        result: dict[str, str] = {}
        for name in ("special_tokens_map.json", "tokenizer_config.json"):
            settings = self._settings(name)
            for key in settings.values:
                if key.endswith("_token") and not key.startswith("add_"):
                    written = written_as(settings, key)
                    if written is not None:
                        result[key] = written
        return result

    @cached_property
    def templates(self) -> dict[str, str]:
        """Return the chat templates by name; a single one is "default"."""
        result = templates_in(self._settings("tokenizer_config.json"))
        own = {}
        if (self.folder / "chat_template.jinja").exists():
            own["default"] = read_text(self.folder / "chat_template.jinja")
        more = self.folder / "additional_chat_templates"
        for path in sorted(more.glob("*.jinja")) if more.is_dir() else []:
            own[path.stem] = read_text(path)
        return own or result

    @cached_property
    def end_tokens(self) -> frozenset[int]:
        """Return the tokens that end a text: eos_token_id, or else what eos_token is.

        A generation_config.json is believed more than the config.json, as by transformers.
        """
        for name in ("generation_config.json", "config.json"):
            settings = self._settings(name)
            if settings.get("eos_token_id") is not None:
                return ids_of(settings, "eos_token_id")
        written = self.special_tokens.get("eos_token")
        number = None if written is None else self.tokenizer.token_to_id(written)
        return frozenset(() if number is None else (number,))

    @cached_property
    def sampling(self) -> Settings:
        """Return generation_config.json, of which `sampler_of` takes how tokens are chosen."""
        return self._settings("generation_config.json")

    def _settings(self, name: str) -> Settings:
        """Return what a file says, which may be missing."""
        path = self.folder / name
        return Settings.from_file(path) if path.exists() else Settings({}, path)


def ids_of(settings: Settings, name: str) -> frozenset[int]:
    """Return a setting that is a token's id or a list of them."""
    value = settings.get(name)
    ids = value if isinstance(value, list) else [value]
    if not all(type(each) is int and each >= 0 for each in ids):
        raise ValueError(
            f"{settings.path}: {name} must be a token's id or a list of them, not {shown(value)}"
        )
    return frozenset(ids)


def written_as(settings: Settings, name: str) -> str | None:
    """Return a special token that is written as itself or as an object with "content"."""
    value = settings.get(name)
    if isinstance(value, dict):
        value = value.get("content")
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{settings.path}: {name} must be a text, not {shown(value)}")
    return value


def templates_in(settings: Settings) -> dict[str, str]:
    """Return chat_template, which is a text, or a list of objects of name and template."""
    value = settings.get("chat_template")
    if value is None:
        return {}
    if isinstance(value, str):
        return {"default": value}
    named: dict[str, str] = {}
    for each in value if isinstance(value, list) else [value]:
        name, text = (each.get("name"), each.get("template")) if isinstance(each, dict) else (0, 0)
        if not isinstance(name, str) or not isinstance(text, str):
            raise ValueError(
                f"{settings.path}: chat_template must be a text, or a list of objects of name and "
                f"template, not {shown(value)}"
            )
        named[name] = text
    return named


def read_text(path: Path) -> str:
    """Return a file of UTF-8, its ends of lines as "\\n"."""
    data = regular_file(path).read_bytes()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")
