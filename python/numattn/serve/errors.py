"""Errors that a client is told of, in the form that OpenAI's clients read.

400  the request is malformed, or asks for more context than the model has
401  the key is missing or wrong          404  no such model, or address
408  the body came too slowly             413  the body is too large
422  well-formed, and beyond what this service was set to take
429  as many requests as are allowed are being answered
500  a fault of the service               503  the service is stopping
"""

from __future__ import annotations

import json
from typing import Any


class ApiError(Exception):
    """An error with its HTTP status and what OpenAI's error objects hold."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = headers or {}

    @property
    def content(self) -> dict[str, Any]:
        """Return the JSON object of the answer."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        if self.status == 429:
            kind = "rate_limit_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    @property
    def body(self) -> bytes:
        """Return the answer's body."""
        return json.dumps(self.content, ensure_ascii=False).encode("utf-8", "replace")


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """Return the error for a request that is malformed."""
    return ApiError(400, message, param=param, code=code)


def beyond(message: str, param: str | None = None) -> ApiError:
    """Return the error for a request that is larger than the service was set to take."""
    return ApiError(422, message, param=param, code="limit_exceeded")


def too_long(limit: int, tokens: str, param: str) -> ApiError:
    """Return the error for a text that is longer than its model reads."""
    message = f"This model's maximum context length is {limit} tokens; {tokens}."
    return ApiError(400, message, param=param, code="context_length_exceeded")


def failed(error: BaseException) -> ApiError:
    """Return the error for a fault of the service."""
    return ApiError(500, f"the service failed: {type(error).__name__}", code="internal_error")
