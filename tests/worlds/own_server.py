"""A server of one's own in a process of its own, on a free port of the loopback interface."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import requests
import uvicorn

from cval_torch.service.server.app import create_app
from cval_torch.service.server.connections import server_config
from cval_torch.service.server.settings import Limits

KEY = "test-key-one"


class OwnServer:
    """What `cval-torch serve` started: its process, and its `url`, under which the protocol's paths are."""

    def __init__(self, data: Path, *options: str, key: str = KEY, port: int = 0) -> None:
        self.key = key
        self.lines: list[str] = []
        environment = {**os.environ, "CVAL_API_KEY": key}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cval_torch.cli", "serve", "--data", str(data), "--port", str(port), *options],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.root = self._wait_until_it_listens()
        except BaseException:
            self.stop()
            raise
        self.url = f"{self.root}/api"

    @property
    def log(self) -> str:
        return "".join(self.lines)

    def healthy(self) -> dict[str, object]:
        with requests.Session() as session:
            session.trust_env = False
            answer: dict[str, object] = session.get(f"{self.root}/healthz", timeout=10).json()
        return answer

    def kill(self) -> None:
        """As `kill -9`."""
        self.process.kill()
        self._ended()

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self._ended()

    def _ended(self) -> None:
        self.process.wait(20)
        self._reader.join(20)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    def _wait_until_it_listens(self) -> str:
        end = time.monotonic() + 90
        while time.monotonic() < end:
            found = re.search(r"running on (http://[\d.]+:\d+)", self.log)
            if found:
                return found.group(1)
            if self.process.poll() is not None:
                self._reader.join(5)
                break
            time.sleep(0.02)
        raise RuntimeError(f"the server did not start:\n{self.log}")


@contextlib.contextmanager
def own_server(data: Path, *options: str, key: str = KEY) -> Iterator[OwnServer]:
    server = OwnServer(data, *options, key=key)
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def serving_here(
    data: Path, limits: Limits | None = None, *, keys: Sequence[tuple[str | None, str]] | Path = ((None, KEY),)
) -> Iterator[str]:
    """The application in this process, in a thread, behind a socket."""
    # asyncio switches Nagle's algorithm off only where the protocol is named: else each answer waits 40 ms
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(server_config(create_app(data, keys, limits=limits), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        finally:
            server.should_exit = True
            thread.join()
