"""What is said to bytes that are no request to be served."""

from __future__ import annotations

from proxy.status_lines import STATUS_LINES


def last_words(status: int, code: str, message: str) -> bytes:
    """The whole answer to bytes that are no request to be served; the connection ends with it."""
    body = b'{"error":{"code":"%b","message":"%b"}}' % (code.encode(), message.encode())
    head = b"\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
    return STATUS_LINES[status] + head % len(body) + body
