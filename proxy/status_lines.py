"""The first line of an answer, by its status, without its end."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

STATUS_LINES: Final = {
    status: f"HTTP/1.1 {status} {HTTPStatus(status).phrase if status in set(HTTPStatus) else ''}".encode()
    for status in range(200, 600)
}
