"""CLIP and SigLIP: images and texts as vectors in one space.

    similarity of an image and a text = scale · cos(image, text) + bias      (CLIP has no bias)
    probability of a label            = softmax over the labels              CLIP
                                      = sigmoid, each label by itself        SigLIP

(Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021;
Zhai et al., Sigmoid Loss for Language Image Pre-Training, 2023.)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from numattn._dtypes import storage_name

from ..arrays import Float32Array, Int64Array
from ..files.checkpoint import Checkpoint
from ..files.folder import model_folder
from ..files.storage import storage_dtype
from ..files.tokens import load_tokenizer
from ..ids import check_ids
from ..ragged import Ragged
from ..texts import each_text
from ..token_lists import TokenLists, token_lists
from ..vectors import of_length_one
from .clip_config import ANCHOR, ClipConfig
from .image_batches import all_at_once, image_batches
from .image_tower import ImageTower
from .images import Image
from .labels import Guess, best, probabilities
from .padding import Padding, read_padding
from .processor import ImageProcessor
from .text_tower import TextTower

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Indices that are counted anew.
IGNORED = r"(.*\.)?embeddings\.position_ids"
# Texts computed at once.
TEXT_BATCH = 64


class Clip:
    """A CLIP or SigLIP: images and texts → vectors whose products say how well they fit.

    Made by `Clip.from_folder`. Any number of threads may call one model at once.

    Attributes
    ----------
    config : ClipConfig
        Sizes and choices.
    processor : ImageProcessor
        Images → numbers.
    tokenizer : tokenizers.Tokenizer or None
        Texts → token ids; None without tokenizer.json.
    dtype : numpy.dtype
        What the weights of the layers are stored in: float32, bfloat16 or int8.
    storage : str
        The same by its name, which tells "w8a8" from "int8" (see :class:`numattn.Linear`).
    scale, bias : float
        Of the similarity.

    Examples
    --------
    >>> from numattn.models import Clip
    >>> model = Clip.from_folder("clip-vit-base-patch32")  # doctest: +SKIP
    >>> model.classify(["cat.jpg"], labels=["cat", "dog"])  # doctest: +SKIP
    >>> model.encode_images(["cat.jpg"]) @ model.encode_texts(["a cat"]).T  # doctest: +SKIP
    """

    def __init__(
        self,
        config: ClipConfig,
        checkpoint: Checkpoint,
        processor: ImageProcessor,
        tokenizer: Tokenizer | None,
        padding: Padding,
        dtype: DTypeLike | None = None,
    ) -> None:
        self.config, self.processor, self.tokenizer = config, processor, tokenizer
        self._padding = padding
        self.storage = storage_name(dtype)
        self.dtype = storage_dtype(self.storage)
        self._images = ImageTower(checkpoint, config, self.storage)
        self._texts = TextTower(checkpoint, config, self.storage)
        shape = (1,) if config.is_siglip else ()
        self.scale = float(np.exp(checkpoint.take("logit_scale", shape)).item())
        self.bias = float(checkpoint.take("logit_bias", shape).item()) if config.is_siglip else 0.0

    @classmethod
    def from_folder(cls, folder: str | Path, *, dtype: DTypeLike | None = None) -> Clip:
        """Load a Hugging Face folder: config.json, model.safetensors, preprocessor_config.json.

        And tokenizer.json, without which texts are given as token ids.

        Parameters
        ----------
        folder : path
            The folder, of model_type clip, siglip or siglip2.
        dtype : {None, float32, bfloat16, int8, "w8a8"}
            How the layers store their weights: float32 by default. Patches are projected by
            float32 weights; embeddings, hidden states, sums and norms are float32, too.

        Raises
        ------
        FileNotFoundError
            If the folder or a file is missing. Nothing is downloaded.
        ImportError
            If safetensors or tokenizers is not installed, or ml_dtypes for bfloat16.
        ValueError
            If a file is damaged, a tensor is missing, unused or of another shape than the
            configuration says, or the folder or `dtype` asks for something that is not supported.
        """
        path = model_folder(folder)
        config = ClipConfig.from_file(path / "config.json")
        processor = ImageProcessor.from_folder(
            path, config.model_type, config.patches.channels, config.patches.patch[0]
        )
        tokenizer = None
        if (path / "tokenizer.json").exists():
            tokenizer = load_tokenizer(path)
            tokenizer.no_padding()
            tokenizer.enable_truncation(config.max_positions)
        checkpoint = Checkpoint(path / "model.safetensors", ANCHOR)
        # CLIP's texts are not filled up, whatever its tokenizer's files say.
        padding = Padding(config.pad_token_id, False)
        if config.is_siglip:
            padding = read_padding(path, tokenizer, config.pad_token_id)
        model = cls(config, checkpoint, processor, tokenizer, padding, dtype)
        checkpoint.finish(IGNORED)
        return model

    def preprocess(self, images: Iterable[Image]) -> Float32Array:
        """Return what the model reads of images (N, C, H, W), float32."""
        cut = self.config.patches
        return all_at_once(images, self.processor, (cut.channels, *cut.image))

    def grid(self, pixel_values: Float32Array) -> tuple[int, int]:
        """Return the rows and columns of patches in numbers of images (..., H, W)."""
        return self._images.patches.grid(pixel_values.shape)

    @property
    def num_special(self) -> int:
        """Tokens before those of the patches: [CLS], or none."""
        return self._images.patches.num_special

    def image_states(
        self, pixel_values: ArrayLike, *, num_threads: int | None = None
    ) -> Float32Array:
        """Return the hidden states (N, S, E) of images (N, C, H, W): transformers' last.

        Raises
        ------
        TypeError, ValueError
            If pixel_values are no floats, or of another shape than `preprocess` makes.
        """
        return self._images.states(self._checked(pixel_values), num_threads)

    def encode_images(
        self,
        images: Iterable[Image],
        *,
        batch_size: int = 16,
        normalize: bool = True,
        progress: Callable[[int], object] | None = None,
        num_threads: int | None = None,
    ) -> Float32Array:
        """Return one vector per image (N, P).

        Parameters
        ----------
        images : iterable of images
            Paths, bytes of files, PIL images or uint8 arrays (H, W, 3); gone through once.
        batch_size : int
            Images computed at once: bounds the memory.
        normalize : bool
            Whether vectors are scaled to length 1.
        progress : callable, optional
            Called with the number of images of each batch, once it is done.
        num_threads : int, optional
            Upper limit for this call.

        Raises
        ------
        FileNotFoundError, OSError, ImportError, TypeError, ValueError
            If an image cannot be read; a ValueError tells its number.
        """
        vectors = [np.zeros((0, self.config.vector_size), np.float32)]
        for numbers in image_batches(images, self.processor, batch_size):
            vectors.append(self._images.vectors(self._checked(numbers), num_threads))
            if progress is not None:
                progress(len(numbers))
        result = np.concatenate(vectors)
        return of_length_one(result) if normalize else result

    def encode_texts(
        self, texts: Iterable[str], *, normalize: bool = True, num_threads: int | None = None
    ) -> Float32Array:
        """Return one vector per text (N, P).

        A text of more tokens than the model reads is cut, its end mark kept, with a UserWarning
        that counts those. SigLIP's texts are filled up with padding, as it was trained.

        Parameters
        ----------
        texts : iterable of str
        normalize : bool
            Whether vectors are scaled to length 1.
        num_threads : int, optional
            Upper limit for this call.

        Raises
        ------
        TypeError
            If texts is a string or has no order, or holds something else than strings.
        ValueError
            If a text is not Unicode, or there is no tokenizer.
        """
        if self.tokenizer is None:
            raise ValueError("the folder has no tokenizer.json: `encode_tokens` takes token ids")
        given = [*each_text(texts)]
        try:
            # A batch: the function for a single text would hold the interpreter's lock all along.
            encodings = self.tokenizer.encode_batch(given)
        except Exception as error:
            if type(error) is not Exception:  # the library's own is of no narrower class
                raise
            raise ValueError(f"the tokenizer fails on a text: {error}") from None
        cut = sum(bool(encoding.overflowing) for encoding in encodings)
        if cut:
            warnings.warn(
                f"{cut} of {len(encodings)} texts have more than the {self.config.max_positions} "
                "tokens that the model reads, and were cut",
                stacklevel=2,
            )
        ids = [encoding.ids for encoding in encodings]
        if self.config.is_siglip:
            ids = [self._padding.filled(each, self.config.max_positions) for each in ids]
        return self.encode_tokens(ids, normalize=normalize, num_threads=num_threads)

    def encode_tokens(
        self,
        token_ids: TokenLists,
        *,
        normalize: bool = True,
        num_threads: int | None = None,
    ) -> Float32Array:
        """Return one vector per list of token ids (N, P), each as it is: nothing is added or cut.

        Raises
        ------
        TypeError, ValueError
            If one is no list of ids, is empty or longer than the model reads, or of CLIP's has no
            end mark.
        """
        lists = token_lists("token_ids", token_ids, self.config.vocab_size)
        for number, each in enumerate(lists):
            if not 0 < each.size <= self.config.max_positions:
                raise ValueError(
                    f"token_ids {number} has {each.size} tokens; the model reads 1 … "
                    f"{self.config.max_positions}"
                )
        vectors = [np.zeros((0, self.config.vector_size), np.float32)]
        for begin in range(0, len(lists), TEXT_BATCH):
            batch = lists[begin : begin + TEXT_BATCH]
            sequences = Ragged.of_lengths([each.size for each in batch])
            vectors.append(self._texts.vectors(np.concatenate(batch), sequences, num_threads))
        result = np.concatenate(vectors)
        return of_length_one(result) if normalize else result

    def similarity(
        self,
        images: Iterable[Image],
        texts: Iterable[str],
        *,
        batch_size: int = 16,
        num_threads: int | None = None,
    ) -> Float32Array:
        """Return how well images fit texts (N, M): transformers' logits_per_image.

        Raises
        ------
        FileNotFoundError, OSError, ImportError, TypeError, ValueError
            As `encode_images` and `encode_texts` do.
        """
        words = self.encode_texts(texts, num_threads=num_threads)
        pictures = self.encode_images(images, batch_size=batch_size, num_threads=num_threads)
        result: Float32Array = pictures @ words.T * np.float32(self.scale) + np.float32(self.bias)
        return result

    def classify(
        self,
        images: Iterable[Image],
        labels: Sequence[str],
        *,
        template: str = "{}",
        top: int = 5,
        batch_size: int = 16,
        num_threads: int | None = None,
    ) -> list[list[Guess]]:
        """Return for each image the labels that fit best, best first, without any training.

        Parameters
        ----------
        images : iterable of images
            As for `encode_images`.
        labels : sequence of str
            Any words.
        template : str
            The text for a label, which takes the place of ``{}``: "a photo of a {}".
        top : int
            How many labels are wanted.
        batch_size, num_threads
            As for `encode_images`.

        Returns
        -------
        list of lists of Guess
            ``(label, probability)``: CLIP's add up to 1 over all labels, SigLIP's are each one's
            own.

        Raises
        ------
        FileNotFoundError, OSError, ImportError, TypeError, ValueError
            As `similarity`; and a ValueError if there is no label, the template has no ``{}``, or
            top is less than 1.
        """
        names = [*each_text(labels, "labels")]
        if not names:
            raise ValueError("labels must be one or more")
        if "{}" not in template:
            raise ValueError(f"template must have a {{}} for the label, not {template!r}")
        best(np.zeros((0, 1), np.float32), names, top)  # refuses before any work
        texts = [template.replace("{}", name) for name in names]
        logits = self.similarity(images, texts, batch_size=batch_size, num_threads=num_threads)
        return best(probabilities(logits, self.config.is_siglip), names, top)

    def image_attention_weights(
        self,
        pixel_values: ArrayLike,
        layer: int | None = None,
        head: int | None = None,
        rows: ArrayLike | None = None,
        *,
        num_threads: int | None = None,
    ) -> Float32Array:
        """Return the attention maps of one image (C, H, W), as `ViT.attention_weights` does."""
        work = self._images.embed(self._checked(np.asarray(pixel_values)[np.newaxis]), num_threads)
        return self._images.tower.attention_weights(work, layer, head, rows, num_threads)

    def text_attention_weights(
        self,
        token_ids: ArrayLike,
        layer: int | None = None,
        head: int | None = None,
        rows: ArrayLike | None = None,
        *,
        num_threads: int | None = None,
    ) -> Float32Array:
        """Return the attention maps of one text's ids (S,), as `Bert.attention_weights` does."""
        ids: Int64Array = check_ids("token_ids", token_ids, self.config.vocab_size, ndim=1)
        if not 0 < ids.size <= self.config.max_positions:
            raise ValueError(
                f"token_ids has {ids.size} tokens; the model reads 1 … {self.config.max_positions}"
            )
        work = self._texts.embed(ids, Ragged.of_lengths([ids.size]))
        return self._texts.tower.attention_weights(work, layer, head, rows, num_threads)

    def _checked(self, pixel_values: ArrayLike) -> Float32Array:
        """Return numbers of images (N, C, H, W) of a size that the model reads, or raise."""
        return self._images.patches.check(pixel_values, self.config.of_any_size)
