"""Errors as OpenAI's clients expect them, with what mends them."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from services.serving.directory import StackingRefused, UnknownModel
from services.serving.engine.port import (
    AdapterRefused,
    ConstraintRefused,
    ContextExceeded,
    DeadlineExceeded,
    Overloaded,
)
from shared.errors import SluiceError, TransientError

RETRY_AFTER_S = 2
"""What is away comes back in seconds, or is loading."""


class HttpError(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str, *, code: str, mend: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.mend = status, code, mend


_STATUS: dict[type[SluiceError], tuple[int, str]] = {
    Overloaded: (429, "overloaded"),
    DeadlineExceeded: (504, "deadline_exceeded"),
    ContextExceeded: (400, "context_length_exceeded"),
    ConstraintRefused: (400, "invalid_json_schema"),
    StackingRefused: (422, "stacking_refused"),
    AdapterRefused: (422, "adapter_refused"),
    TransientError: (503, "not_ready"),
}


def translate(error: Exception) -> HttpError:
    """The HTTP meaning of a domain error."""
    if isinstance(error, HttpError):
        return error
    if isinstance(error, UnknownModel):
        return HttpError(
            404,
            f"The model {error.args[0]!r} does not exist",
            code="model_not_found",
            mend="GET /v1/models lists what this key may name",
        )
    for kind, (status, code) in _STATUS.items():
        if isinstance(error, kind):
            return HttpError(status, str(error), code=code, mend=error.mend)
    return HttpError(500, f"{type(error).__name__} while answering", code="internal_error")


def body(error: HttpError) -> dict[str, object]:
    """OpenAI's error object; `mend` is ours."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    message = f"{error}. {error.mend}." if error.mend else str(error)
    return {
        "error": {
            "message": message,
            "type": kind,
            "param": None,
            "code": error.code,
            "mend": error.mend,
        }
    }


def response(error: Exception) -> JSONResponse:
    """The answer `error` becomes."""
    wire = translate(error)
    headers = {}
    if isinstance(error, Overloaded):
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    elif wire.status == 503:
        headers["Retry-After"] = str(RETRY_AFTER_S)
    return JSONResponse(body(wire), status_code=wire.status, headers=headers)


def install(app: FastAPI) -> None:
    """Map every error to its answer."""

    async def mapped(_: Request, error: Exception) -> JSONResponse:
        return response(error)

    async def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        problems = "; ".join(
            f"{'.'.join(str(part) for part in e['loc'][1:])}: {e['msg']}" for e in error.errors()
        )
        return response(HttpError(400, problems, code="invalid_request", mend="mend these fields"))

    for kind in (HttpError, UnknownModel, SluiceError, Exception):
        app.add_exception_handler(kind, mapped)
    app.add_exception_handler(RequestValidationError, invalid)
