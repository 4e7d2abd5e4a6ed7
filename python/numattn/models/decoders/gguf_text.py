"""What the metadata of a GGUF file say of text: its tokenizer, chat templates, and end tokens;
and how tokens are chosen.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files.piece_pairs import merges_of
from ..files.settings import Settings, shown

if TYPE_CHECKING:
    from tokenizers import Tokenizer

KEY = "tokenizer.ggml."
TEMPLATE = "tokenizer.chat_template"
SAMPLING = "general.sampling."
# What of it is said in a generation_config.json, by the name there; without effect if it is 0.
SAMPLED = {
    "top_k": "top_k",
    "min_p": "min_p",
    "top_p": "top_p",
    "penalty_repeat": "repetition_penalty",
}
UNKNOWN, CONTROL, OWN = 2, 3, 4  # types of tokens
MARK = "\u2581"  # a space in pieces

# tokenizer.ggml.pre → how texts are cut before bytes are joined.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{NUMBERS}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CUTS = {
    "llama-bpe": WORDS.replace("{NUMBERS}", "{1,3}"),
    "qwen2": WORDS.replace("{NUMBERS}", ""),
}
LLAMA_3 = ("llama-bpe", "llama-v3", "llama3")
SAME_CUTS = {"llama-v3": "llama-bpe", "llama3": "llama-bpe"}


class GgufText:
    """A file's text, each part made when it is first asked for.

    Parameters
    ----------
    path : Path
        The file, for messages.
    values : dict
        Its metadata.

    Raises
    ------
    ImportError
        By `tokenizer`: the library tokenizers is not installed.
    ValueError
        By a part: the metadata lack something, are damaged, or say what is not supported.
    """

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        self.path = path
        self._values = {
            key: each for key, each in values.items() if key.startswith(("tokenizer.", SAMPLING))
        }

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer, which neither cuts texts nor pads them."""
        try:
            import tokenizers  # noqa: F401
        except ImportError:
            raise ImportError(
                "reading a model's texts needs tokenizers: pip install 'numattn[models]'"
            ) from None
        kind = self._values.get(KEY + "model")
        makers = {"gpt2": self._pairs_of_bytes, "llama": self._pieces}
        if kind not in makers:
            raise ValueError(
                f"{self.path}: {KEY}model {shown(kind)} is not supported; supported: {[*makers]}"
            )
        try:
            made: Tokenizer = makers[kind]()
            self._add_special(made)
            self._add_ends(made)
        except (KeyError, TypeError, IndexError, OverflowError) as error:
            raise ValueError(f"{self.path}: its tokenizer is damaged: {error!r}") from None
        return made

    @cached_property
    def special_tokens(self) -> dict[str, str]:
        """Return what special tokens are written as, by their names."""
        names = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
        return {
            f"{name}_token": self._written(number)
            for key, name in names.items()
            if (number := self._id(f"{key}_token_id")) is not None
        }

    @cached_property
    def templates(self) -> dict[str, str]:
        """Return the chat templates by name; a single one is "default"."""
        names = {TEMPLATE: "default"}
        for key in self._values:
            if key.startswith(TEMPLATE + "."):
                names[key] = key.removeprefix(TEMPLATE + ".")
        found = {name: self._values[key] for key, name in names.items() if key in self._values}
        for name, text in found.items():
            if not isinstance(text, str):
                raise ValueError(f"{self.path}: chat template {name!r} is no text: {shown(text)}")
        return found

    @cached_property
    def end_tokens(self) -> frozenset[int]:
        """Return the tokens that end a text, a turn of a chat, or a message."""
        ids = (self._id(f"{name}_token_id") for name in ("eos", "eot", "eom"))
        return frozenset(number for number in ids if number is not None)

    @cached_property
    def sampling(self) -> Settings:
        """Return how tokens are chosen, as a generation_config.json says it.

        A file without a word of it takes the likeliest token. What it leaves out changes nothing.
        """
        own = {
            key.removeprefix(SAMPLING): value
            for key, value in self._values.items()
            if key.startswith(SAMPLING) and value
        }
        if "penalty_repeat" in own and own.get("penalty_last_n", -1) != -1:
            name = "penalty_last_n"  # a penalty is on all tokens of a text
            raise ValueError(f"{self.path}: {SAMPLING}{name} {shown(own[name])} is not supported")
        for name in ("sequence", "xtc_probability", "mirostat"):
            if name in own:
                raise ValueError(
                    f"{self.path}: {SAMPLING}{name} {shown(own[name])} is not supported: make a "
                    "Sampler"
                )
        settings = {new: own[name] for name, new in SAMPLED.items() if name in own}
        said = any(key.startswith(SAMPLING) for key in self._values)
        temperature = self._values.get(f"{SAMPLING}temp", 1.0)
        if said and temperature != 0:
            settings |= {"do_sample": True, "temperature": temperature}
            if settings.get("top_k", -1) == -1:
                settings["top_k"] = 0
        return Settings(settings, self.path)

    def _id(self, name: str) -> int | None:
        """Return the id of a token that has a meaning, or None."""
        number = self._values.get(KEY + name)
        if number is None:
            return None
        if type(number) is not int or not 0 <= number < len(self._list("tokens")):
            raise ValueError(f"{self.path}: {KEY}{name} {shown(number)} is no token")
        return number

    def _written(self, number: int) -> str:
        return str(self._list("tokens")[number])

    def _list(self, name: str) -> list[Any]:
        values = self._values.get(KEY + name)
        if not isinstance(values, list):
            raise ValueError(f"{self.path} has no {KEY}{name}")
        return values

    def _flag(self, name: str, default: bool) -> bool:
        value = self._values.get(KEY + name, default)
        if type(value) is not bool:
            raise ValueError(f"{self.path}: {KEY}{name} must be true or false, not {shown(value)}")
        return value

    def _vocabulary(self) -> dict[str, int]:
        return {token: number for number, token in enumerate(self._list("tokens"))}

    def _pairs_of_bytes(self) -> Tokenizer:
        """Return a tokenizer that joins pairs of bytes, as GPT-2's."""
        from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

        name = self._values.get(KEY + "pre", "gpt-2")
        cut = SAME_CUTS.get(name, name)
        if cut not in ("gpt-2", *CUTS):
            raise ValueError(
                f"{self.path}: {KEY}pre {shown(name)} is not supported; supported: "
                f"{['gpt-2', *CUTS, *SAME_CUTS]}"
            )
        merges = [tuple(merge.split(" ", 1)) for merge in self._list("merges")]
        vocabulary = self._vocabulary()
        for merge in merges:
            if len(merge) != 2 or not {*merge, "".join(merge)} <= vocabulary.keys():
                raise ValueError(f"{self.path}: {KEY}merges has {shown(' '.join(merge))}")
        # Where a whole word is a token, Llama 3 does not ask how it would come about.
        made = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=name in LLAMA_3))
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut == "gpt-2")
        made.pre_tokenizer = byte_level
        if cut != "gpt-2":
            made.pre_tokenizer = pre_tokenizers.Sequence(
                [pre_tokenizers.Split(Regex(CUTS[cut]), "isolated"), byte_level]
            )
        if cut == "qwen2":
            made.normalizer = normalizers.NFC()
        made.decoder = decoders.ByteLevel()
        return made

    def _pieces(self) -> Tokenizer:
        """Return a tokenizer that joins the pieces of sentencepiece, the best score first."""
        from tokenizers import Tokenizer, decoders, models, normalizers

        vocabulary, unknown = self._vocabulary(), self._id("unknown_token_id")
        scores = self._list("scores")
        if len(scores) != len(self._list("tokens")):
            raise ValueError(f"{self.path}: {KEY}scores has {len(scores)} of its tokens' scores")
        made = Tokenizer(
            models.BPE(
                vocabulary,
                merges_of(vocabulary, scores),
                unk_token=self._written(0 if unknown is None else unknown),
                fuse_unk=True,
                byte_fallback=True,
            )
        )
        prefix = self._flag("add_space_prefix", True)
        steps = [normalizers.Prepend(MARK)] if prefix else []
        made.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", MARK)])
        back = [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
        made.decoder = decoders.Sequence([*back, decoders.Strip(" ", 1, 0)] if prefix else back)
        return made

    def _add_special(self, made: Tokenizer) -> None:
        """Let texts hold tokens that have a meaning, and those that were added to the others."""
        from tokenizers import AddedToken

        types = self._values.get(KEY + "token_type", [])
        typed = [*zip(self._list("tokens"), types, strict=False)]
        special = [token for token, kind in typed if kind in (UNKNOWN, CONTROL)]
        own = [token for token, kind in typed if kind == OWN]
        made.add_special_tokens(
            [AddedToken(each, special=True, normalized=False) for each in special]
        )
        made.add_tokens([AddedToken(each, special=False, normalized=False) for each in own])

    def _add_ends(self, made: Tokenizer) -> None:
        """Let a text have the tokens around it that the metadata call for."""
        from tokenizers.processors import TemplateProcessing

        pieces = self._values[KEY + "model"] == "llama"
        begins = pieces or self._values.get(KEY + "pre") in LLAMA_3
        parts: list[str] = ["$A"]
        tokens: list[tuple[str, int]] = []
        for name, flag, usual in (
            ("bos", "add_bos_token", begins),
            ("eos", "add_eos_token", False),
        ):
            number = self._id(f"{name}_token_id")
            if number is None or not self._flag(flag, usual):
                continue
            tokens.append((self._written(number), number))
            parts = [tokens[-1][0], *parts] if name == "bos" else [*parts, tokens[-1][0]]
        if tokens:
            made.post_processor = TemplateProcessing(single=parts, special_tokens=tokens)
