"""Hugging Face folders of tiny random vision models, written by the tests themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

Tensors = dict[str, NDArray[np.float32]]
Options = dict[str, Any]

WIDTH, INNER, LAYERS, HEADS, SIDE, PATCH, LABELS = 16, 24, 2, 2, 16, 4, 5
TEXT_WIDTH, VECTOR, LENGTH = 24, 12, 10
WORDS = "a photo of the cat dog bird three".split()
VOCABULARY = ["<pad>", "<s>", "</s>", "<unk>", *WORDS]
END = VOCABULARY.index("</s>")

SIZES: Options = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
    "image_size": SIDE,
    "patch_size": PATCH,
}
LABELLED: Options = {"id2label": {str(number): f"label {number}" for number in range(LABELS)}}
TEXT: Options = {
    "hidden_size": TEXT_WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
    "vocab_size": len(VOCABULARY),
    "max_position_embeddings": LENGTH,
    "bos_token_id": 1,
    "eos_token_id": END,
    "pad_token_id": 0,
}
# The end mark is the vocabulary's last but for those that are told (text_tower.py).
TOLD: Options = {**TEXT, "eos_token_id": len(VOCABULARY) - 1}

# A name for each kind → what its config.json says.
CONFIGS: dict[str, Options] = {
    "vit": {"model_type": "vit", **SIZES, **LABELLED},
    "vit-quick": {
        "model_type": "vit",
        **SIZES,
        **LABELLED,
        "hidden_act": "quick_gelu",
        "qkv_bias": False,
        "num_channels": 1,
    },
    "deit": {"model_type": "deit", **SIZES, **LABELLED},
    "deit-teacher": {"model_type": "deit", **SIZES, **LABELLED},
    "dinov2": {"model_type": "dinov2", **SIZES, **LABELLED, "mlp_ratio": 2},
    "dinov2-swiglu": {
        "model_type": "dinov2",
        **SIZES,
        **LABELLED,
        "mlp_ratio": 2,
        "use_swiglu_ffn": True,
    },
    "dinov2_with_registers": {
        "model_type": "dinov2_with_registers",
        **SIZES,
        **LABELLED,
        "mlp_ratio": 2,
        "num_register_tokens": 3,
    },
    "clip": {
        "model_type": "clip",
        "projection_dim": VECTOR,
        "text_config": TOLD,
        "vision_config": SIZES,
    },
    "clip-untold": {
        "model_type": "clip",
        "projection_dim": VECTOR,
        "text_config": TEXT,
        "vision_config": SIZES,
    },
    "siglip": {
        "model_type": "siglip",
        "text_config": {**TEXT, "projection_size": WIDTH},
        "vision_config": SIZES,
    },
}
VITS = [name for name in CONFIGS if not name.startswith(("clip", "siglip"))]
CLIPS = [name for name in CONFIGS if name not in VITS]


def channels_of(kind: str) -> int:
    """Return the channels of what a kind reads."""
    return int(CONFIGS[kind].get("num_channels", 3))


def linear(name: str, rows: int, columns: int, bias: bool = True) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a projection's tensors."""
    return {f"{name}.weight": (rows, columns)} | ({f"{name}.bias": (rows,)} if bias else {})


def norm(name: str, width: int = WIDTH) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def vit_shapes(kind: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors of a ViT, DeiT or DINOv2 by name."""
    config = CONFIGS[kind]
    family = config["model_type"]
    dino, root = family.startswith("dinov2"), f"{family}."
    prefix = 2 if family == "deit" else 1
    shapes: dict[str, tuple[int, ...]] = {
        f"{root}embeddings.cls_token": (1, 1, WIDTH),
        f"{root}embeddings.position_embeddings": (1, prefix + (SIDE // PATCH) ** 2, WIDTH),
        f"{root}embeddings.patch_embeddings.projection.weight": (
            *(WIDTH, channels_of(kind)),
            *(PATCH, PATCH),
        ),
        f"{root}embeddings.patch_embeddings.projection.bias": (WIDTH,),
        **norm(f"{root}layernorm"),
    }
    if family == "deit":
        shapes[f"{root}embeddings.distillation_token"] = (1, 1, WIDTH)
    if dino:
        shapes[f"{root}embeddings.mask_token"] = (1, WIDTH)
    if family == "dinov2_with_registers":
        shapes[f"{root}embeddings.register_tokens"] = (1, 3, WIDTH)
    for number in range(LAYERS):
        layer = f"{root}encoder.layer.{number}."
        for part in ("query", "key", "value"):
            bias = config.get("qkv_bias", True)
            shapes |= linear(f"{layer}attention.attention.{part}", WIDTH, WIDTH, bias)
        shapes |= linear(f"{layer}attention.output.dense", WIDTH, WIDTH)
        if not dino:
            shapes |= norm(f"{layer}layernorm_before") | norm(f"{layer}layernorm_after")
            shapes |= linear(f"{layer}intermediate.dense", INNER, WIDTH)
            shapes |= linear(f"{layer}output.dense", WIDTH, INNER)
            continue
        shapes |= norm(f"{layer}norm1") | norm(f"{layer}norm2")
        shapes |= {f"{layer}layer_scale{part}.lambda1": (WIDTH,) for part in (1, 2)}
        if config.get("use_swiglu_ffn"):  # two thirds of 2 · WIDTH, in eights
            shapes |= linear(f"{layer}mlp.weights_in", 48, WIDTH)
            shapes |= linear(f"{layer}mlp.weights_out", WIDTH, 24)
        else:
            shapes |= linear(f"{layer}mlp.fc1", 2 * WIDTH, WIDTH)
            shapes |= linear(f"{layer}mlp.fc2", WIDTH, 2 * WIDTH)
    if kind == "deit-teacher":
        heads = ["cls_classifier", "distillation_classifier"]
    else:
        heads = ["classifier"]
    for head in heads:
        shapes |= linear(head, LABELS, 2 * WIDTH if dino else WIDTH)
    return shapes


def clip_shapes(kind: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors of a CLIP or SigLIP by name."""
    siglip = kind == "siglip"
    text, image = "text_model.", "vision_model."
    patches = (SIDE // PATCH) ** 2
    shapes: dict[str, tuple[int, ...]] = {
        f"{text}embeddings.token_embedding.weight": (len(VOCABULARY), TEXT_WIDTH),
        f"{text}embeddings.position_embedding.weight": (LENGTH, TEXT_WIDTH),
        **norm(f"{text}final_layer_norm", TEXT_WIDTH),
        f"{image}embeddings.patch_embedding.weight": (WIDTH, 3, PATCH, PATCH),
        f"{image}embeddings.position_embedding.weight": (patches + (not siglip), WIDTH),
        **norm(f"{image}post_layernorm"),
        "logit_scale": (1,) if siglip else (),
    }
    if siglip:
        head = f"{image}head."
        shapes |= {"logit_bias": (1,), f"{image}embeddings.patch_embedding.bias": (WIDTH,)}
        shapes |= linear(f"{text}head", WIDTH, TEXT_WIDTH) | norm(f"{head}layernorm")
        shapes |= {
            f"{head}probe": (1, 1, WIDTH),
            f"{head}attention.in_proj_weight": (3 * WIDTH, WIDTH),
            f"{head}attention.in_proj_bias": (3 * WIDTH,),
        }
        shapes |= linear(f"{head}attention.out_proj", WIDTH, WIDTH)
        shapes |= linear(f"{head}mlp.fc1", INNER, WIDTH) | linear(f"{head}mlp.fc2", WIDTH, INNER)
    else:
        shapes |= {f"{image}embeddings.class_embedding": (WIDTH,), **norm(f"{image}pre_layrnorm")}
        shapes |= linear("text_projection", VECTOR, TEXT_WIDTH, False)
        shapes |= linear("visual_projection", VECTOR, WIDTH, False)
    for root, width in ((text, TEXT_WIDTH), (image, WIDTH)):
        for number in range(LAYERS):
            layer = f"{root}encoder.layers.{number}."
            shapes |= norm(f"{layer}layer_norm1", width) | norm(f"{layer}layer_norm2", width)
            for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                shapes |= linear(f"{layer}self_attn.{part}", width, width)
            shapes |= linear(f"{layer}mlp.fc1", INNER, width)
            shapes |= linear(f"{layer}mlp.fc2", width, INNER)
    return shapes


def tensors_of(kind: str) -> Tensors:
    """Return random tensors, the same on every machine, large enough to make peaked maps."""
    shapes = vit_shapes(kind) if kind in VITS else clip_shapes(kind)
    generator = np.random.RandomState(7)
    tensors = {}
    for name, shape in sorted(shapes.items()):
        values = 0.3 * generator.standard_normal(shape)
        shifted = "norm" in name and name.endswith("weight") or "lambda" in name
        tensors[name] = np.asarray(values + shifted, dtype=np.float32)
    return tensors


def tokenizer() -> Tokenizer:
    """Return a tokenizer of words, with marks at both ends, or at the end alone."""
    made = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(VOCABULARY)}, unk_token="<unk>")
    )
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        special_tokens=[("<s>", VOCABULARY.index("<s>")), ("</s>", END)],
    )
    made.add_special_tokens(["<pad>", "<s>", "</s>", "<unk>"])
    return made


PROCESSORS: dict[str, Options] = {
    "vit": {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": SIDE, "width": SIDE},
        "resample": 2,
    },
    "deit": {
        "image_processor_type": "DeiTImageProcessor",
        "size": {"height": 20, "width": 20},
        "crop_size": {"height": SIDE, "width": SIDE},
        "resample": 3,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    },
    "dinov2": {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": 20},
        "crop_size": {"height": SIDE, "width": SIDE},
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    },
    "clip": {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": SIDE},
        "crop_size": {"height": SIDE, "width": SIDE},
    },
    "siglip": {
        "image_processor_type": "SiglipImageProcessor",
        "size": {"height": SIDE, "width": SIDE},
    },
}


def processor_of(kind: str) -> Options:
    """Return the preprocessor_config.json of a kind."""
    made = dict(PROCESSORS[kind.split("-")[0].removesuffix("_with_registers")])
    if channels_of(kind) == 1:
        made |= {"image_mean": [0.5], "image_std": [0.5]}
    return made


def write_folder(
    folder: Path,
    kind: str,
    config: Options | None = None,
    tensors: dict[str, NDArray[Any]] | None = None,
    processor: Options | None = None,
) -> Path:
    """Write a folder and return it; `config` and `processor` change entries (None removes one)."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (
        ("config", CONFIGS[kind] | (config or {})),
        ("preprocessor_config", processor_of(kind) | (processor or {})),
    ):
        kept = {key: value for key, value in content.items() if value is not None}
        (folder / f"{name}.json").write_text(json.dumps(kept), encoding="utf-8")
    save_file(tensors_of(kind) if tensors is None else tensors, folder / "model.safetensors")
    if kind in CLIPS:
        made = tokenizer()
        if kind == "clip":  # whose end mark is the last word
            made.post_processor = processors.TemplateProcessing(
                single="<s> $A three", special_tokens=[("<s>", 1), ("three", TOLD["eos_token_id"])]
            )
        made.save(str(folder / "tokenizer.json"))
    return folder


def pictures(seed: int = 3) -> list[NDArray[np.uint8]]:
    """Return images of several sizes, smooth and rough, one of the model's own."""
    generator = np.random.RandomState(seed)
    sizes = [(SIDE, SIDE), (30, 21), (9, 40), (33, 64)]
    images = [generator.randint(0, 256, (*size, 3)).astype(np.uint8) for size in sizes]
    slope = np.linspace(0, 255, 48)[:, None, None] * np.array([1, 0.5, 0.1])
    return [*images, np.broadcast_to(slope, (48, 50, 3)).astype(np.uint8)]


TOKENS = [[1, 4, 8, 5, 2, 11], [1, 9, 7, 11, 11, 2], [1, 4, 5, 6, 2, 11]]
"""Ids of texts, each with both end marks; what stands behind the mark does not count in CLIP."""


CLASSIFIERS = {"clip": "CLIPForImageClassification", "siglip": "SiglipForImageClassification"}


def write_classifier(folder: Path, kind: str, config: Options | None = None) -> Path:
    """Write a CLIP's or SigLIP's images alone, with a classifier over them."""
    whole = tensors_of(kind)
    tensors = {name: whole[name] for name in whole if name.startswith("vision_model.")}
    generator = np.random.RandomState(8)
    for name, shape in linear("classifier", LABELS, WIDTH).items():
        tensors[name] = generator.standard_normal(shape).astype(np.float32)
    changes = {"architectures": [CLASSIFIERS[kind]], **LABELLED, **(config or {})}
    return write_folder(folder, kind, changes, tensors)


SIGLIP2: Options = {
    "model_type": "siglip2",
    "text_config": {**TEXT, "projection_size": WIDTH},
    "vision_config": {**SIZES, "num_patches": (SIDE // PATCH) ** 2},
}
NAFLEX: Options = {
    "image_processor_type": "Siglip2ImageProcessor",
    "patch_size": PATCH,
    "max_num_patches": 24,
}


def write_siglip2(
    folder: Path, config: Options | None = None, processor: Options | None = None
) -> Path:
    """Write a SigLIP 2 that reads images in their own proportions, or with a classifier."""
    tensors = tensors_of("siglip")
    if config and "architectures" in config:
        tensors = {name: tensors[name] for name in tensors if name.startswith("vision_model.")}
        generator = np.random.RandomState(8)
        for name, shape in linear("classifier", LABELS, WIDTH).items():
            tensors[name] = generator.standard_normal(shape).astype(np.float32)
    name = "vision_model.embeddings.patch_embedding.weight"
    tensors[name] = np.ascontiguousarray(tensors[name].reshape(WIDTH, -1))
    write_folder(folder, "siglip", {**SIGLIP2, **(config or {})}, tensors)
    made = json.dumps({**NAFLEX, **(processor or {})})
    (folder / "preprocessor_config.json").write_text(made, encoding="utf-8")
    return folder
