"""What the Python of the pages finds when it runs: tiny models under the names that it loads.

A page that is not here is run with nothing prepared. Each entry yields the names that are there
beforehand, among them "replaced": what stands in the page, and what is run instead.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

Names = dict[str, Any]
CHAT = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant]"


@contextmanager
def readme(folder: Path) -> Iterator[Names]:
    """A Llama, stored in bfloat16."""
    import tiny_decoders

    pytest.importorskip("ml_dtypes")
    tiny_decoders.write_folder(folder / "SmolLM-135M", "llama")
    yield {}


@contextmanager
def generation(folder: Path) -> Iterator[Names]:
    """A model that writes texts and chats, and what is said to it."""
    from numattn.models import Sampler
    from tiny_tokenizers import text_model

    model = text_model(folder / "llama", tokenizer_config={"chat_template": CHAT})
    names: Names = {
        "model": model, "small": model, "Sampler": Sampler, "token": 70, "prompt": "the cat",
        "system": {"role": "system", "content": "be"},
        "question": {"role": "user", "content": "the cat"},
        "another": {"role": "user", "content": "the dog"},
        "replaced": {"tools=[...]": "tools=[]"},
    }  # fmt: skip
    yield names
    assert names["written"].text and names["prefixes"].reused > 0


@contextmanager
def models(folder: Path) -> Iterator[Names]:
    """A reader of pairs with one label."""
    import numpy as np

    from tiny_bert import CONFIG, tensors_of, write_folder
    from tiny_encoders import numbers, write_tokenizer

    width = CONFIG["hidden_size"]
    shapes = {"bert.pooler.dense": [width, width], "classifier": [1, width]}
    tensors = {f"bert.{name}": tensor for name, tensor in tensors_of(CONFIG).items()}
    for name, shape in shapes.items():
        tensors[f"{name}.weight"] = numbers(f"{name}.weight", shape)
        tensors[f"{name}.bias"] = numbers(f"{name}.bias", shape[:1])
    config = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "relevance"}}
    write_tokenizer(write_folder(folder / "ms-marco-MiniLM-L6-v2", config, tensors))
    names: Names = {"query": "the cat", "passages": ["the dog", "a cat"]}
    yield names
    assert np.shape(names["scores"]) == (2,)


@contextmanager
def encoder_decoders(folder: Path) -> Iterator[Names]:
    """A T5 and a Whisper that write words, and a sound."""
    from test_encoder_decoder_texts import write_tokenizer
    from test_sound import write_wav
    from tiny_encoder_decoders import (
        CONFIGS,
        VOCABULARY,
        WHISPER,
        settings_of,
        speech_like,
        write_folder,
        write_whisper,
    )

    t5 = write_folder(folder / "flan-t5-small", "t5", generation=settings_of(CONFIGS["t5"]))
    write_tokenizer(t5, VOCABULARY, 1)
    whisper = write_whisper(folder / "whisper-tiny", {"alignment_heads": [[0, 1]]})
    write_tokenizer(whisper, WHISPER["vocab_size"], 50)
    write_wav(folder / "speech.wav", speech_like(1.5)[:, None], 2, 1, 16000)
    names: Names = {}
    yield names
    assert names["result"].segments


@contextmanager
def vision(folder: Path) -> Iterator[Names]:
    """A ViT, a CLIP and a DETR, and images."""
    image = pytest.importorskip("PIL.Image")
    for peer in ("onnx", "onnxruntime"):  # of which DETR has its convolutions
        pytest.importorskip(peer)
    import tiny_detr
    import tiny_vision

    tiny_vision.write_folder(folder / "vit-base-patch16-224", "vit")
    tiny_vision.write_folder(folder / "clip-vit-base-patch32", "clip")
    tiny_detr.write_folder(folder / "detr-resnet-50", "bottleneck")
    for name, pixels in zip(("cat.jpg", "dog.png"), tiny_vision.pictures(), strict=False):
        image.fromarray(pixels).save(folder / name)
    yield {"replaced": {"layer=3": "layer=1"}}


@contextmanager
def serving(folder: Path) -> Iterator[Names]:
    """A service of an encoder and a decoder."""
    pytest.importorskip("openai")
    from numattn.models import Bert
    from serving import catalogue_of
    from serving import serving as started
    from tiny_bert import write_folder
    from tiny_tokenizers import text_model

    encoder = Bert.from_folder(write_folder(folder / "bert"))
    decoder = text_model(folder / "llama", tokenizer_config={"chat_template": CHAT})
    with started(catalogue_of(**{"all-MiniLM-L6-v2": encoder, "qwen2": decoder})) as address:
        yield {"replaced": {"http://127.0.0.1:8000": address}}


@contextmanager
def frameworks(folder: Path) -> Iterator[Names]:
    """A model of transformers', whose weights transformers itself draws, and Keras for NumPy."""
    from tiny_bert import CONFIG, write_folder

    write_folder(folder / "bert")
    (folder / "bert" / "config.json").write_text(json.dumps(CONFIG))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "numpy")
        names: Names = {"folder": folder / "bert"}
        yield names
        if "keras" in names:
            names["numattn"].compat.keras.disable()


Prepared = Callable[[Path], AbstractContextManager[Names]]
PREPARED: dict[str, Prepared] = {
    "README.md": readme,
    "docs/encoder-decoders.md": encoder_decoders,
    "docs/frameworks.md": frameworks,
    "docs/generation.md": generation,
    "docs/models.md": models,
    "docs/serving.md": serving,
    "docs/vision.md": vision,
}
