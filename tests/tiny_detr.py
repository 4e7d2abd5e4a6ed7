"""Hugging Face folders of tiny random DETRs, written by the tests themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

Shapes = dict[str, tuple[int, ...]]

WIDTH, INNER, QUERIES, LABELS = 16, 24, 5, 4
STEM = "model.backbone.conv_encoder.model."


def config_of(kind: str) -> dict[str, Any]:
    """Return the config.json of a DETR whose ResNet has blocks of a kind: bottleneck or basic."""
    return {
        "model_type": "detr",
        "d_model": WIDTH,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": INNER,
        "decoder_ffn_dim": INNER,
        "num_queries": QUERIES,
        "use_timm_backbone": False,
        "id2label": {str(number): f"thing {number}" for number in range(LABELS)},
        "backbone_config": {
            "model_type": "resnet",
            "embedding_size": 8,
            "hidden_sizes": [8, 16, 16, 32],
            "depths": [1, 2, 1, 1],
            "layer_type": kind,
            "out_features": ["stage4"],
        },
    }


def convolution(name: str, out: int, channels: int, side: int) -> Shapes:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{STEM}{name}convolution.weight": (out, channels, side, side)} | {
        f"{STEM}{name}normalization.{part}": (out,) for part in parts
    }


def resnet_shapes(first: int, widths: list[int], depths: list[int], kind: str) -> Shapes:
    """Return the shapes of a ResNet's tensors by name."""
    shapes = convolution("embedder.embedder.", first, 3, 7)
    width = first
    for stage, (wide, depth) in enumerate(zip(widths, depths, strict=True)):
        for block in range(depth):
            place = f"encoder.stages.{stage}.layers.{block}."
            narrow = wide // 4
            three = [(narrow, width, 1), (narrow, narrow, 3), (wide, narrow, 1)]
            layers = three if kind == "bottleneck" else [(wide, width, 3), (wide, wide, 3)]
            for number, layer in enumerate(layers):
                shapes |= convolution(f"{place}layer.{number}.", *layer)
            if width != wide or (stage > 0 and block == 0):
                shapes |= convolution(f"{place}shortcut.", wide, width, 1)
            width = wide
    return shapes


def transformer_shapes(channels: int) -> Shapes:
    """Return the shapes of all other tensors."""
    shapes: Shapes = {
        "model.query_position_embeddings.weight": (QUERIES, WIDTH),
        "model.input_projection.weight": (WIDTH, channels, 1, 1),
        "model.input_projection.bias": (WIDTH,),
    }

    def linear(name: str, rows: int, columns: int) -> None:
        shapes.update({f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)})

    def norm(name: str) -> None:
        shapes.update({f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)})

    norm("model.decoder.layernorm")
    for half in ("encoder", "decoder"):
        for number in range(2):
            layer = f"model.{half}.layers.{number}."
            for part in ("self_attn", *(["encoder_attn"] if half == "decoder" else [])):
                for each in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    linear(f"{layer}{part}.{each}", WIDTH, WIDTH)
                norm(f"{layer}{part}_layer_norm")
            linear(f"{layer}fc1", INNER, WIDTH)
            linear(f"{layer}fc2", WIDTH, INNER)
            norm(f"{layer}final_layer_norm")
    linear("class_labels_classifier", LABELS + 1, WIDTH)
    for number, rows in enumerate((WIDTH, WIDTH, 4)):
        linear(f"bbox_predictor.layers.{number}", rows, WIDTH)
    return shapes


def random_tensors(shapes: Shapes) -> dict[str, NDArray[np.float32]]:
    """Return random tensors, the same on every machine."""
    generator = np.random.RandomState(11)
    tensors = {}
    for name, shape in sorted(shapes.items()):
        values = generator.standard_normal(shape)
        if name.endswith("running_var"):
            values = 0.5 + np.abs(values)
        elif "convolution" in name:
            values *= np.sqrt(2 / np.prod(shape[1:]))
        else:
            size = 1.0 if "query_position" in name or "class_labels" in name else 0.3
            values = size * values + ("norm" in name and name.endswith("weight"))
        tensors[name] = values.astype(np.float32)
    return tensors


def tensors_of(kind: str) -> dict[str, NDArray[np.float32]]:
    """Return the tensors of a tiny DETR."""
    sizes = config_of(kind)["backbone_config"]
    resnet = resnet_shapes(8, sizes["hidden_sizes"], sizes["depths"], kind)
    return random_tensors(resnet | transformer_shapes(32))


def write_folder(
    folder: Path,
    kind: str,
    config: dict[str, Any] | None = None,
    tensors: dict[str, NDArray[Any]] | None = None,
) -> Path:
    """Write a folder and return it; `config` changes entries."""
    folder.mkdir(parents=True, exist_ok=True)
    processor = {
        "image_processor_type": "DetrImageProcessor",
        "size": {"shortest_edge": 64, "longest_edge": 100},
        "do_pad": True,
    }
    for name, content in (
        ("config", config_of(kind) | (config or {})),
        ("preprocessor_config", processor),
    ):
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    save_file(tensors_of(kind) if tensors is None else tensors, folder / "model.safetensors")
    return folder


def picture(size: tuple[int, int] = (100, 61)) -> NDArray[np.uint8]:
    """Return an image."""
    return np.random.RandomState(2).randint(0, 256, (*size, 3)).astype(np.uint8)
