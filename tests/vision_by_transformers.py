"""What transformers makes of the tiny vision models, for the golden file and for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import tiny_vision

OTHER_SIZE = (24, 8)
"""Height and width of images that are not the models' own."""
CLASSES = {
    "vit": "ViTForImageClassification",
    "deit": "DeiTForImageClassification",
    "deit-teacher": "DeiTForImageClassificationWithTeacher",
    "dinov2": "Dinov2ForImageClassification",
    "dinov2_with_registers": "Dinov2WithRegistersForImageClassification",
    "clip": "CLIPModel",
    "siglip": "SiglipModel",
}
BACKBONES = {"ViT": "vit", "DeiT": "deit", "Dinov2": "dinov2"}


def class_of(kind: str) -> str:
    return CLASSES.get(kind) or CLASSES[kind.split("-")[0]]


def other_pixels(kind: str) -> NDArray[np.float32]:
    """Return numbers of two images of another size than the models' own."""
    shape = (2, tiny_vision.channels_of(kind), *OTHER_SIZE)
    return np.random.RandomState(5).standard_normal(shape).astype(np.float32)


def pixels_by_transformers(kind: str, folder: Path) -> NDArray[np.float32]:
    """Return what the folder's processor, the one that works with Pillow, makes of the pictures."""
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    assert type(processor).__name__.endswith("Pil")
    images: list[Any] = tiny_vision.pictures()
    if tiny_vision.channels_of(kind) == 1:
        from PIL import Image

        images = [Image.fromarray(image).convert("L") for image in images]
    result: NDArray[np.float32] = processor(images, return_tensors="np")["pixel_values"]
    return result


def outputs_of(kind: str, folder: Path) -> dict[str, NDArray[np.float32]]:
    """Return numbers of images, hidden states, logits and so on, by name."""
    import torch
    import transformers

    model = getattr(transformers, class_of(kind)).from_pretrained(folder, dtype=torch.float32)
    model.set_attn_implementation("eager")
    model.eval()
    numbers = pixels_by_transformers(kind, folder)
    with torch.no_grad():
        if kind in tiny_vision.CLIPS:
            ids = torch.tensor(tiny_vision.TOKENS)
            both = model(input_ids=ids, pixel_values=torch.tensor(numbers))
            found = {
                "states": both.vision_model_output.last_hidden_state,
                "images": both.image_embeds,
                "texts": both.text_embeds,
                "logits": both.logits_per_image,
            }
        else:
            base = getattr(model, model.base_model_prefix)
            options = {} if kind.startswith("dinov2") else {"interpolate_pos_encoding": True}
            attended = model(torch.tensor(numbers), output_attentions=True)
            found = {
                "states": base(torch.tensor(numbers)).last_hidden_state,
                "logits": attended.logits,
                "weights": torch.stack(attended.attentions)[:, 1],
                "other": base(torch.tensor(other_pixels(kind)), **options).last_hidden_state,
            }
    return {"pixels": numbers, **{name: value.numpy() for name, value in found.items()}}


def classifier_outputs(kind: str, folder: Path) -> dict[str, NDArray[np.float32]]:
    """Return numbers of images, hidden states, logits and maps of a classifier's folder."""
    import torch
    import transformers

    model = getattr(transformers, tiny_vision.CLASSIFIERS[kind]).from_pretrained(
        folder, dtype=torch.float32
    )
    model.set_attn_implementation("eager")
    numbers = pixels_by_transformers(kind, folder)
    with torch.no_grad():
        found = model.eval()(torch.tensor(numbers), output_attentions=True)
        states = model.vision_model(torch.tensor(numbers)).last_hidden_state
    return {
        "pixels": numbers,
        "states": states.numpy(),
        "logits": found.logits.numpy(),
        "weights": torch.stack(found.attentions)[:, 1].numpy(),
    }


def siglip2_outputs(folder: Path, *, classifier: bool = False) -> dict[str, NDArray[np.float32]]:
    """Return what a SigLIP 2's folder makes of the pictures, states of the real patches alone."""
    import torch
    import transformers
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    given = processor(tiny_vision.pictures(), return_tensors="pt", max_num_patches=24)
    name = "Siglip2ForImageClassification" if classifier else "Siglip2Model"
    model = getattr(transformers, name).from_pretrained(folder, dtype=torch.float32).eval()
    found = {"pixels": given["pixel_values"], "shapes": given["spatial_shapes"]}
    with torch.no_grad():
        if classifier:
            found["logits"] = model(**given).logits
        else:
            both = model(input_ids=torch.tensor(tiny_vision.TOKENS), **given)
            real = given["pixel_attention_mask"].bool()
            found |= {
                "states": both.vision_model_output.last_hidden_state[real],
                "images": both.image_embeds,
                "texts": both.text_embeds,
                "logits": both.logits_per_image,
            }
    return {key: value.numpy() for key, value in found.items()}
