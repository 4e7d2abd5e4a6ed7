"""What a service counts, for Prometheus.

Of several processes each writes its numbers into files of a folder that all know (the library's
multiprocess mode), and whoever is asked adds them up.
"""

from __future__ import annotations

import os
from typing import Any

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
MISSING = "the service needs prometheus_client: pip install 'numattn[serve]'"
# Seconds: from one short text to a long one.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


class Metrics:
    """Counters, gauges and histograms, in a registry of their own."""

    def __init__(self) -> None:
        try:
            from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
        except ImportError:
            raise ImportError(MISSING) from None
        self._registry: Any = CollectorRegistry()
        where: dict[str, Any] = {"registry": self._registry}
        alive: dict[str, Any] = {**where, "multiprocess_mode": "livesum"}
        self.requests = Counter(
            "numattn_requests", "Requests answered.", ["endpoint", "status"], **where
        )
        self.seconds = Histogram(
            "numattn_request_seconds",
            "From a request's first byte to its answer's last.",
            ["endpoint"],
            buckets=SECONDS,
            **where,
        )
        self.in_progress = Gauge("numattn_requests_in_progress", "Requests begun.", **alive)
        self.disconnects = Counter(
            "numattn_disconnects", "Clients that left before their answer.", ["endpoint"], **where
        )
        self.prompt_tokens = Counter(
            "numattn_prompt_tokens", "Tokens of prompts.", ["model"], **where
        )
        self.reused_tokens = Counter(
            "numattn_reused_tokens",
            "Of these, tokens that were not read: another prompt began alike.",
            ["model"],
            **where,
        )
        self.new_tokens = Counter("numattn_new_tokens", "Tokens written.", ["model"], **where)
        self.guessed_tokens = Counter(
            "numattn_guessed_tokens", "Tokens that were guessed (--draft).", ["model"], **where
        )
        self.accepted_tokens = Counter(
            "numattn_accepted_tokens", "Guesses that were right.", ["model"], **where
        )
        self.batch_tokens = Histogram(
            "numattn_batch_tokens",
            "Tokens of embeddings computed at once.",
            ["model"],
            buckets=TOKENS,
            **where,
        )
        self.waiting = Gauge("numattn_waiting", "Texts that wait.", ["model"], **alive)
        self.running = Gauge("numattn_running", "Texts that are being written.", ["model"], **alive)
        self.free_pages = Gauge(
            "numattn_free_pages", "Pages of keys and values that are free.", ["model"], **alive
        )
        self.kept_pages = Gauge(
            "numattn_kept_pages",
            "Pages of prompts' beginnings that are kept while nobody else needs pages.",
            ["model"],
            **alive,
        )

    def exposition(self) -> tuple[bytes, str]:
        """Return all numbers in Prometheus' text format, and its media type."""
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        registry: Any = self._registry
        if os.environ.get(FOLDER):
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call, unused-ignore]
        return generate_latest(registry), CONTENT_TYPE_LATEST


def forget_process(pid: int) -> None:
    """Leave what a process that has ended held out of the sums; what it counted stays."""
    from prometheus_client.multiprocess import mark_process_dead

    if os.environ.get(FOLDER):
        mark_process_dead(pid)  # type: ignore[no-untyped-call, unused-ignore]
