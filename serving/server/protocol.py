"""HTTP on a connection, with bounds for what comes before a request: headers and silence."""

from __future__ import annotations

import asyncio
import fcntl
import sys
import termios
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.server.config import ServerConfig

_CLOSE = {"connection": "close"}


async def _too_long(scope: Scope, receive: Receive, send: Send) -> None:
    await Response(status_code=431, headers=_CLOSE)(scope, receive, send)


def _bytes_to_read(transport: asyncio.Transport) -> int:
    """Return what a client has not yet read: the transport's bytes, and the kernel's."""
    socket = transport.get_extra_info("socket")
    kernels = fcntl.ioctl(socket.fileno(), termios.TIOCOUTQ, bytes(4))
    return transport.get_write_buffer_size() + int.from_bytes(kernels, sys.byteorder)


def bounded_protocol(config: ServerConfig) -> type[HttpToolsProtocol]:
    """Return uvicorn's protocol with the bounds of `config`; uvicorn itself has none of these."""
    waiting: dict[BoundedProtocol, None] = {}  # for a request's headers, the longest first

    class BoundedProtocol(HttpToolsProtocol):
        """Protocol that closes connections that are too many, silent for long or all headers."""

        _timer: asyncio.TimerHandle | None = None
        _unread_timer: asyncio.TimerHandle | None = None
        _in_body = False
        _messages = 0
        _header_bytes = 0  # of a request whose headers have not ended
        _unread = 0  # bytes of the last answer that the client had not read

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > config.max_connections:
                if waiting:
                    next(iter(waiting))._close()
                else:
                    self._refuse(503)
            self._wait_for_headers()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            self._stop_unread_timer()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._start_unread_timer()

        def resume_writing(self) -> None:
            self._stop_unread_timer()
            super().resume_writing()

        def _start_unread_timer(self) -> None:
            """Give a client that reads none of what is being sent, such as a stream, a while."""
            unread = _bytes_to_read(self.transport)
            self._unread_timer = self.loop.call_later(
                config.idle_seconds, self._abort_if_unread, unread
            )

        def _stop_unread_timer(self) -> None:
            if self._unread_timer is not None:
                self._unread_timer.cancel()
                self._unread_timer = None

        def _abort_if_unread(self, unread: int) -> None:
            if _bytes_to_read(self.transport) < unread:
                self._start_unread_timer()
            else:
                self.transport.abort()

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            messages = self._messages
            super().data_received(data)
            self._wait_for_headers()
            if not self._in_body:
                ended = self._messages > messages
                self._header_bytes = 0 if ended else self._header_bytes + len(data)
                if self._header_bytes > config.max_header_bytes:
                    self._refuse(431)

        def on_headers_complete(self) -> None:
            length = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            app = self.config.loaded_app
            self.app = _too_long if length > config.max_header_bytes else app
            self._in_body = True
            self._stop_waiting()
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._in_body = False
            self._messages += 1
            super().on_message_complete()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._wait_for_headers()

        def _wait_for_headers(self) -> None:
            """Close the connection after a while; but a request has a deadline of its own."""
            in_request = self.cycle is not None and not self.cycle.response_complete
            if self._timer is None and not in_request and not self.transport.is_closing():
                self._timer = self.loop.call_later(config.idle_seconds, self._close_if_silent)
                self._unread = _bytes_to_read(self.transport)
                waiting[self] = None

        def _stop_waiting(self) -> None:
            waiting.pop(self, None)
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _close_if_silent(self) -> None:
            """Close the connection, unless its client is still reading the last answer."""
            unread = _bytes_to_read(self.transport)
            if 0 < unread < self._unread:
                self._unread = unread
                self._timer = self.loop.call_later(config.idle_seconds, self._close_if_silent)
            else:
                self._close()

        def _close(self) -> None:
            self._stop_waiting()
            if self.transport.get_write_buffer_size():
                self.transport.abort()  # closing would wait for the client to read
            else:
                self.transport.close()

        def _refuse(self, status: int) -> None:
            if not self.transport.is_closing():
                end = b"content-length: 0\r\nconnection: close\r\n\r\n"
                self.transport.write(STATUS_LINE[status] + end)
                self._stop_waiting()
                self.transport.close()

    return BoundedProtocol
