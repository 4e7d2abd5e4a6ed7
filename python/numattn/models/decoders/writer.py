"""The side of a decoder that reads and writes text: text ↔ token ids, and chats → prompts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from numattn.cache import Cache

from ..arrays import Int64Array
from ..sampling import Sampler
from ..texts import check_text, in_order
from ..token_lists import token_list
from .chat import render_chat
from .detokenizer import Detokenizer
from .generate import Stop
from .generation import LanguageModel
from .prefix_cache import PrefixCache
from .sampler_defaults import sampler_of
from .speculation import Draft
from .text_folder import TextSource
from .written import TextStream, Written, write_texts

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Prompt: TypeAlias = "str | Iterable[Mapping[str, Any]] | Iterable[int] | Int64Array"


class Writer(LanguageModel):
    """What a decoder does with text; `Decoder` derives from it.

    Attributes
    ----------
    text_source : TextSource or None
        The tokenizer, chat templates and end tokens of the model's folder, read when they are first
        needed. None for a model that was made otherwise.
    """

    text_source: TextSource | None = None

    def _source(self) -> TextSource:
        if self.text_source is None:
            raise ValueError("the model has no tokenizer: it was not loaded from a folder")
        return self.text_source

    @property
    def tokenizer(self) -> Tokenizer:
        """Return the model's own tokenizer, of the library tokenizers.

        Raises
        ------
        FileNotFoundError
            If the model's folder has no tokenizer.json.
        ImportError
            If the library tokenizers is not installed.
        ValueError
            If a file of the folder is damaged, or names code of its own.
        """
        return self._source().tokenizer

    @property
    def end_tokens(self) -> frozenset[int]:
        """Return the ids that end a text: eos_token_id of generation_config.json or config.json.

        Raises
        ------
        ValueError
            If the folder says that it is something else than ids of the model.
        """
        ends = self._source().end_tokens
        if not all(token < self.vocab_size for token in ends):
            raise ValueError(
                f"eos_token_id must be in 0 … {self.vocab_size - 1}, not {sorted(ends)}"
            )
        return ends

    def sampler(self, **changes: Any) -> Sampler:
        """Return the sampler that the folder's generation_config.json asks for.

        Parameters
        ----------
        **changes
            Arguments of `Sampler` that go before what the file says: a seed, say.

        Raises
        ------
        TypeError, ValueError
            As by `Sampler`; ValueError also if the file asks for what is not supported.

        Notes
        -----
        Greedy without such a file, or without do_sample in it, as transformers is. What generates
        does not ask for it by itself: give the result as `sampler`.
        """
        return sampler_of(self._source().sampling, changes)

    def tokenize(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Return the ids of a text.

        Parameters
        ----------
        text : str
            The text. What is written in it as a special token becomes that.
        add_special_tokens : bool
            Put before it what the tokenizer says belongs there, as BOS for Llama.

        Raises
        ------
        TypeError
            If text is no string.
        ValueError
            If it is not Unicode, or the tokenizer fails on it.
        FileNotFoundError, ImportError
            As for `tokenizer`.

        Examples
        --------
        >>> model.tokenize("The cat")  # doctest: +SKIP
        [1, 450, 6635]
        """
        tokenizer = self.tokenizer
        try:
            # Of several texts the library reads each without the interpreter's lock.
            (encoding,) = tokenizer.encode_batch(
                [check_text(text)], add_special_tokens=add_special_tokens
            )
        except Exception as error:
            if type(error) is not Exception:  # the library's own is of no narrower class
                raise
            raise ValueError(f"the tokenizer fails on a text: {error}") from None
        return list(encoding.ids)

    def detokenize(self, tokens: Iterable[int] | Int64Array, *, keep_special: bool = False) -> str:
        """Return the text of ids; special tokens among them are left out, or kept.

        Raises
        ------
        TypeError, ValueError
            If tokens are not a sequence of the model's ids.
        FileNotFoundError, ImportError
            As for `tokenizer`.
        """
        ids = token_list("tokens", tokens, self.vocab_size).tolist()
        return self.tokenizer.decode(ids, skip_special_tokens=not keep_special)

    def detokenizer(
        self, before: Iterable[int] | Int64Array = (), *, keep_special: bool = False
    ) -> Detokenizer:
        """Return what turns tokens into text one by one, in whole characters.

        Parameters
        ----------
        before : sequence of int
            The tokens before them, as the prompt's, whose text is not returned.
        keep_special : bool
            Keep special tokens.
        """
        ids = token_list("before", before, self.vocab_size).tolist()
        return Detokenizer(self.tokenizer, ids, keep_special=keep_special)

    def chat_text(
        self,
        messages: Iterable[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        tools: Iterable[Mapping[str, Any]] | None = None,
        *,
        template: str | None = None,
        **variables: Any,
    ) -> str:
        """Return the prompt that the model's chat template makes of messages.

        Parameters
        ----------
        messages : iterable of mappings
            Each with "role" ("system", "user", "assistant", "tool"), "content" and whatever else
            the template knows, in plain data as of JSON.
        add_generation_prompt : bool
            Let the prompt end with what begins the model's answer.
        tools : iterable of mappings, optional
            What the model may call, each described by a JSON schema.
        template : str, optional
            The name of one of the model's templates; otherwise "tool_use" with tools, where there
            is one, and "default".
        **variables
            Whatever else the template knows, as `enable_thinking=False`.

        Raises
        ------
        TypeError
            If messages, tools or variables are not plain data.
        ValueError
            If the model has no chat template, or none of that name; or if it is no Jinja, refuses
            the messages, fails, or does what it may not.
        ImportError
            If the library jinja2 is not installed.

        Notes
        -----
        The result is what transformers' apply_chat_template makes. A message that contains the text
        of a special token, as "<|im_end|>", contains that token: filter what strangers write.

        Examples
        --------
        >>> model.chat_text([{"role": "user", "content": "Hi"}])  # doctest: +SKIP
        '<|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n'
        """
        source = self._source()
        return render_chat(
            self._template(template, tools is not None), messages,
            add_generation_prompt=add_generation_prompt, tools=tools,
            special_tokens=source.special_tokens, **variables,
        )  # fmt: skip

    def _template(self, name: str | None, with_tools: bool) -> str:
        """Return the chat template of that name, or the one for chats with tools or without."""
        templates = self._source().templates
        if not templates:
            raise ValueError("the model has no chat template: give a prompt")
        wanted = name
        if wanted is None:
            wanted = "tool_use" if with_tools and "tool_use" in templates else "default"
        if wanted not in templates:
            raise ValueError(f"the model has no chat template {wanted!r}, but {sorted(templates)}")
        return templates[wanted]

    def chat_prompt(
        self,
        messages: Iterable[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        tools: Iterable[Mapping[str, Any]] | None = None,
        *,
        template: str | None = None,
        **variables: Any,
    ) -> list[int]:
        """Return the ids of `chat_text`, which has the arguments and errors that these have.

        Nothing is put before it: the template writes all special tokens itself.
        """
        text = self.chat_text(
            messages, add_generation_prompt, tools, template=template, **variables
        )
        return self.tokenize(text, add_special_tokens=False)

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """Return the ids of a text, of messages of a chat, or of a sequence of ids.

        Raises
        ------
        TypeError, ValueError, FileNotFoundError, ImportError
            As `tokenize`, as `chat_prompt`, or if ids are none of the model's.
        """
        if isinstance(prompt, str):
            return self.tokenize(prompt)
        if hasattr(prompt, "__array__"):
            return list(token_list("prompt", prompt, self.vocab_size).tolist())
        parts: list[Any] = [*in_order("prompt", prompt, "messages or token ids")]
        if any(isinstance(part, Mapping) for part in parts):
            return self.chat_prompt(parts)
        return list(token_list("prompt", parts, self.vocab_size).tolist())

    def generate_texts(
        self,
        prompts: Iterable[Prompt],
        max_new_tokens: int,
        *,
        stop: str | Iterable[str] = (),
        ends: Stop = None,
        sampler: Sampler | None = None,
        draft: Draft | None = None,
        keep_special: bool = False,
        cache: Cache | None = None,
        prefixes: PrefixCache | None = None,
        chunk: int | None = None,
        num_threads: int | None = None,
    ) -> list[Written]:
        """Return what the model writes after each prompt.

        Parameters
        ----------
        prompts : iterable of str, of lists of messages, or of sequences of int
            Texts, chats (see `chat_prompt`) or ids.
        max_new_tokens : int
            Upper limit for each text.
        stop : str or iterable of str
            A text ends before the first of these strings, across borders of tokens too.
        ends : int or iterable of int, optional
            It ends with the first of these tokens, which is no part of the text: the model's
            `end_tokens` by default, () for none.
        keep_special : bool
            Write special tokens as others.
        sampler, draft, cache, prefixes, chunk, num_threads
            As for `generate`.

        Returns
        -------
        list of Written
            Their texts, tokens, and why they ended.

        Raises
        ------
        TypeError, ValueError, MemoryError
            As `generate`, `prompt_ids` and `StopStrings`.
        FileNotFoundError, ImportError
            As for `tokenizer`.

        Examples
        --------
        >>> (answer,) = model.generate_texts(["The sky is"], 20, stop="\\n")  # doctest: +SKIP
        >>> answer.text, answer.finish_reason  # doctest: +SKIP
        (' blue.', 'stop')
        """
        return write_texts(
            self, self.tokenizer, [self.prompt_ids(each) for each in in_order(
                "prompts", prompts, "texts, chats or token ids")], max_new_tokens,
            ends=self.end_tokens if ends is None else ends, stop=stop, keep_special=keep_special,
            sampler=sampler, draft=draft, cache=cache, prefixes=prefixes, chunk=chunk,
            num_threads=num_threads,
        )  # fmt: skip

    def generate_text(self, prompt: Prompt, max_new_tokens: int, **options: Any) -> Written:
        """Return what the model writes after one prompt; see `generate_texts`."""
        (written,) = self.generate_texts([prompt], max_new_tokens, **options)
        return written

    def stream(
        self,
        prompt: Prompt,
        max_new_tokens: int,
        *,
        stop: str | Iterable[str] = (),
        ends: Stop = None,
        sampler: Sampler | None = None,
        draft: Draft | None = None,
        keep_special: bool = False,
        cache: Cache | None = None,
        prefixes: PrefixCache | None = None,
        chunk: int | None = None,
        num_threads: int | None = None,
    ) -> TextStream:
        """Return an iterator over the pieces of what the model writes after one prompt.

        Arguments and errors are those of `generate_texts`; what is wrong with them is said at once.
        Each piece is whole characters and never empty, and the pieces make up the text. The
        iterator has the text so far, its tokens, and at the end its `finish_reason`. To write no
        more, take no more.

        Examples
        --------
        >>> for piece in model.stream("The sky is", 20):  # doctest: +SKIP
        ...     print(piece, end="", flush=True)
        """
        return TextStream(
            self, self.tokenizer, self.prompt_ids(prompt), max_new_tokens,
            ends=self.end_tokens if ends is None else ends, stop=stop, keep_special=keep_special,
            sampler=sampler, draft=draft, cache=cache, prefixes=prefixes, chunk=chunk,
            num_threads=num_threads,
        )  # fmt: skip
