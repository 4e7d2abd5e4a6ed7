"""`numattn serve`: models behind the HTTP interface that OpenAI's clients speak.

    request → guard.py (key, room, metrics) → an endpoint → an engine's queue → its one thread

    embeddings.py completions.py chat.py catalogue.py      endpoints: JSON in, JSON or events out
    embedding_engine.py       texts that wait are computed together, nothing padded
    text_engine.py batch.py   texts are written together, token by token, over pages of one pool
    app.py server.py workers.py      Starlette; uvicorn; processes that share the weights

The event loop parses, waits and sends; it computes nothing. Each model belongs to one thread. What
Starlette, uvicorn and prometheus_client are needed for is imported when it is called.
"""

from __future__ import annotations

from .app import create_app
from .catalogue import Catalogue
from .limits import Limits

__all__ = ["Catalogue", "Limits", "create_app"]
