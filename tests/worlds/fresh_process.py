"""Python in a process of its own, with what processes need to find each other and the modules of the tests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys


def free_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it, to success. The processes that it starts may join one `torch.distributed` group."""
    variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **variables})
    assert done.returncode == 0, done.stderr
    return done
