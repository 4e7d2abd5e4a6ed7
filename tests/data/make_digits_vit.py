"""Train the ViT in tests/data/digits_vit, and write the digits that it is tested on.

    python tests/data/make_digits_vit.py

The images are scikit-learn's digits (Alpaydin and Kaynak, Optical Recognition of Handwritten
Digits, UCI, 1998; CC BY 4.0): 1797 of 8 × 8 numbers 0 … 16, here 0 … 255. A seventh of them is held
out, 256, and tested on. Needs torch, transformers and scikit-learn; takes some five minutes.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from transformers import ViTConfig, ViTForImageClassification

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "digits_vit"
NAMES = "zero one two three four five six seven eight nine".split()
EPOCHS, BATCH, SEED = 150, 64, 0
TESTED = 40  # digits that the tests see
MEAN, STD = 0.3, 0.38


def shifted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return images moved by up to one pixel, each its own way."""
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1))
    corners = torch.randint(0, 3, (len(images), 2), generator=generator)
    moved = [
        image[:, y : y + 8, x : x + 8]
        for image, (y, x) in zip(padded, corners.tolist(), strict=True)
    ]
    return torch.stack(moved)


def train(pixels: np.ndarray, target: np.ndarray) -> ViTForImageClassification:
    """Return a model trained on images (N, 8, 8) of 0 … 255."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # more than one only wait for one another at this size
    config = ViTConfig(
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=96,
        image_size=8,
        patch_size=2,
        num_channels=1,
        layer_norm_eps=1e-6,
        id2label=dict(enumerate(NAMES)),
        label2id={name: number for number, name in enumerate(NAMES)},
    )
    model = ViTForImageClassification(config)
    generator = torch.Generator().manual_seed(SEED)
    images = torch.tensor((pixels / 255 - MEAN) / STD, dtype=torch.float32)[:, None]
    labels = torch.tensor(target)
    steps = EPOCHS * (len(images) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for epoch in range(EPOCHS):
        order = torch.randperm(len(images), generator=generator)
        for begin in range(0, len(images) - BATCH + 1, BATCH):
            chosen = order[begin : begin + BATCH]
            logits = model(shifted(images[chosen], generator)).logits
            loss = torch.nn.functional.cross_entropy(logits, labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch}: loss {loss.item():.3f}", flush=True)
    return model.eval()


def write_folder(model: ViTForImageClassification) -> None:
    """Write the model, its weights as float16, and how images are brought to it."""
    model.save_pretrained(FOLDER)
    path = FOLDER / "model.safetensors"
    save_file({name: value.half() for name, value in load_file(path).items()}, path)
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 8, "width": 8},
        "resample": 2,
        "rescale_factor": 1 / 255,
        "image_mean": [MEAN],
        "image_std": [STD],
    }
    text = json.dumps(processor, indent=2) + "\n"
    (FOLDER / "preprocessor_config.json").write_text(text, encoding="utf-8")


def main() -> None:
    """Train, say how good it is, and write."""
    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    order = np.random.default_rng(SEED).permutation(len(pixels))
    held, others = order[: len(order) // 7], order[len(order) // 7 :]
    model = train(pixels[others], digits.target[others])
    write_folder(model)
    model = ViTForImageClassification.from_pretrained(FOLDER, dtype=torch.float32).eval()
    with torch.no_grad():
        numbers = torch.tensor((pixels[held] / 255 - MEAN) / STD, dtype=torch.float32)[:, None]
        logits = model(numbers).logits.numpy()
    right = logits.argmax(axis=1) == digits.target[held]
    print(f"{right.sum()} of {right.size} held out are right: {right.mean():.1%}")
    np.savez_compressed(
        HERE / "digits.npz",
        images=pixels[held],
        labels=digits.target[held].astype(np.uint8),
        logits=logits[:TESTED].astype(np.float32),
    )
    three = held[np.flatnonzero(digits.target[held] == 3)[0]]
    Image.fromarray(pixels[three]).save(FOLDER / "three.png", optimize=True)


if __name__ == "__main__":
    main()
