"""What transformers makes of the tiny DETRs, for the golden file and for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiny_detr import picture


def outputs_of(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Return numbers of the picture, logits, boxes, the decoder's maps, and objects found."""
    import torch
    from transformers import AutoImageProcessor, DetrForObjectDetection

    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    model = DetrForObjectDetection.from_pretrained(folder, dtype=torch.float32)
    model.set_attn_implementation("eager")
    model.eval()
    inputs = processor(picture(), return_tensors="pt")
    with torch.no_grad():
        found = model(**inputs, output_attentions=True)
    sizes = torch.tensor([picture().shape[:2]])
    (seen,) = processor.post_process_object_detection(found, threshold=0.0, target_sizes=sizes)
    return {
        "pixels": inputs["pixel_values"].numpy(),
        "logits": found.logits.numpy(),
        "boxes": found.pred_boxes.numpy(),
        "weights": torch.stack(found.cross_attentions)[:, 0].numpy(),
        "seen_scores": seen["scores"].numpy(),
        "seen_labels": seen["labels"].numpy().astype(np.float32),
        "seen_boxes": seen["boxes"].numpy(),
    }
