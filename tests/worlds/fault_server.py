"""A server that misbehaves as it is told, through a real socket of the loopback interface."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import requests


@dataclass
class Request:
    """One request as it came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Behaviour = Callable[[socket.socket, Request], None]


def answer(
    content: Any = None,
    status: int = 200,
    *,
    headers: dict[str, str] | None = None,
    raw: bytes | None = None,
    length: int | None = None,
) -> Behaviour:
    """A well-formed answer: JSON of `content`, or `raw` bytes; `length` is declared instead of the true one."""
    body = json.dumps(content).encode() if raw is None else raw

    def behave(connection: socket.socket, request: Request) -> None:
        fields = {"Content-Type": "application/json", "Content-Length": str(len(body) if length is None else length)}
        lines = [f"{name}: {value}" for name, value in {**fields, "Connection": "close", **(headers or {})}.items()]
        connection.sendall("\r\n".join([f"HTTP/1.1 {status} X", *lines, "", ""]).encode() + body)

    return behave


def reset(connection: socket.socket, request: Request) -> None:
    """The connection is reset after the request was read."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def hang_up(connection: socket.socket, request: Request) -> None:
    """The connection is closed without an answer."""


def silence(connection: socket.socket, request: Request) -> None:
    """Nothing is answered for a minute, or until the client goes."""
    connection.settimeout(60)
    with contextlib.suppress(OSError):
        connection.recv(1)


def drip(text: bytes, *, before: bytes = b"") -> Behaviour:
    """`before` at once, and then a byte every 50 ms, over and over."""

    def behave(connection: socket.socket, request: Request) -> None:
        connection.sendall(before)
        with contextlib.suppress(OSError):
            for number in range(1200):
                connection.sendall(text[number % len(text)].to_bytes(1, "big"))
                time.sleep(0.05)

    return behave


def stores(connection: socket.socket, request: Request) -> None:
    """An upload is answered with the names of what is in it."""
    frames = [(frame["frame_id"], [item["embedding_id"] for item in frame["embeddings"]])
              for frame in json.loads(request.body or b"[]")]  # fmt: skip
    named = [{"frame_id": name, "embeddings_quantity": len(ids), "embeddings": ids} for name, ids in frames]
    answer({"frames_quantity": len(named), "frames": named})(connection, request)


def forward(url: str) -> Behaviour:
    """What another server answers, whose `url` ends with `/api`."""

    def behave(connection: socket.socket, request: Request) -> None:
        with requests.Session() as session:
            session.trust_env = False
            there = url.removesuffix("/api") + request.path
            got = session.request(request.method, there, data=request.body, headers=request.headers, timeout=60)
        answer(status=got.status_code, raw=got.content)(connection, request)

    return behave


def keep_open(ports: list[int]) -> Behaviour:
    """Requests of one connection are answered until the client closes it; `ports` are the client's, one a request."""

    def behave(connection: socket.socket, request: Request | None) -> None:
        body = json.dumps({"dataset_id": "d"}).encode()
        while request is not None:
            ports.append(connection.getpeername()[1])
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            request = _read(connection)

    return behave


@dataclass
class FaultServer:
    """Behaves in order: one behaviour a request, the last one for all that follow.

    Attributes:
        tls: speaks TLS by it.
        reads: whether it reads a request before it does anything.
    """

    behaviours: list[Behaviour]
    requests: list[Request] = field(default_factory=list)
    tls: ssl.SSLContext | None = None
    reads: bool = True

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"{'http' if self.tls is None and self.reads else 'https'}://127.0.0.1:{self.port}/api"
        self._open: list[socket.socket] = []
        self._closing = False
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        self._closing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while not self._closing:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        """One request a connection."""
        with contextlib.suppress(OSError), self._wrapped(connection) as spoken:
            request = _read(spoken) if self.reads else Request("", "", {}, b"")
            if request is None:
                return
            self.requests.append(request)
            behaviour = self.behaviours[min(len(self.requests), len(self.behaviours)) - 1]
            behaviour(spoken, request)

    def _wrapped(self, connection: socket.socket) -> socket.socket:
        return connection if self.tls is None else self.tls.wrap_socket(connection, server_side=True)


def _read(connection: socket.socket) -> Request | None:
    connection.settimeout(20)
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(1 << 16)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(headers.get("content-length", 0))
    while len(body) < length:
        piece = connection.recv(1 << 16)
        if not piece:
            return None
        body += piece
    method, path, _ = first.split(" ")
    return Request(method, path, headers, body)


@contextlib.contextmanager
def faulty(*behaviours: Behaviour, tls: ssl.SSLContext | None = None, reads: bool = True) -> Iterator[FaultServer]:
    server = FaultServer(list(behaviours), tls=tls, reads=reads)
    try:
        yield server
    finally:
        server.close()
