"""Who takes part: numattn, and the peers that are installed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contestant import Contestant
    from ours import Numattn


def load(threads: int, isa: str | None) -> tuple[Numattn, list[Contestant], dict[str, str]]:
    """numattn, the peers that can be imported, and why the other peers are left out."""
    from ours import Numattn
    from peers.numkong import NumKong
    from peers.onnxruntime import OnnxRuntime
    from peers.openvino import OpenVINO
    from peers.torch import Torch

    ours = Numattn(threads)
    present: list[Contestant] = []
    missing: dict[str, str] = {}
    kinds: list[type[Contestant]] = [Torch, OnnxRuntime, OpenVINO, NumKong]
    for peer in kinds:
        if peer is OnnxRuntime and isa == "avx2" and " avx512f " in cpu_information("flags"):
            missing[peer.name] = "it cannot be held to AVX2 on a CPU with AVX-512"
            continue
        try:
            present.append(peer(threads))
        except ImportError as error:
            missing[peer.name] = str(error)
    return ours, present, missing


def cpu_information(field: str) -> str:
    """What the kernel says of the first CPU under `field`, or nothing."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, text = line.partition(":")
        if name.strip() == field:
            return text.strip()
    return ""
