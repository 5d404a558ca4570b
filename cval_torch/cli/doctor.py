"""`cval-torch doctor`: what is installed, what the machine has, and whether the service answers."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import sys
from importlib import metadata
from typing import Any

from cval_torch.errors import CvalError
from cval_torch.service.client.key import KEY_VARIABLE

_EXTRAS = {
    "cli": ["yaml"],
    "formats": ["yaml", "defusedxml"],
    "report": ["jinja2", "matplotlib"],
    "maps": ["openTSNE"],
    "video": ["av"],
    "ultralytics": ["ultralytics"],
    "transformers": ["transformers", "accelerate"],
    "lightning": ["lightning"],
    "server": ["fastapi", "uvicorn"],
    "rfdetr": ["rfdetr"],
    "effdet": ["effdet"],
}


def add_doctor(commands: Any) -> None:
    """Add the subcommand to what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "doctor",
        help="say what is installed, and what is not",
        description="Say what is installed, what the machine has, and whether the service answers.",
        epilog="example: cval-torch doctor --json",
    )
    parser.add_argument("--service", action="store_true", help=f"ask the service of {KEY_VARIABLE}, too")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.set_defaults(run=run_doctor)


def run_doctor(options: argparse.Namespace) -> int:
    """Print what was found; the exit status is 1 if something is broken."""
    found = facts()
    broken = _broken()
    if options.service:
        answer = _ask_service()
        found["service"] = answer or "answers"
        broken += [] if answer is None else [answer]
    if options.json:
        print(json.dumps({**found, "broken": broken}, indent=1))
    else:
        for name, value in found.items():
            print(
                f"{name:12} {value if not isinstance(value, dict) else ', '.join(f'{k} {v}' for k, v in value.items())}"
            )
        for problem in broken:
            print(f"{'broken':12} {problem}")
    return 1 if broken else 0


def facts() -> dict[str, Any]:
    """What is installed, and what the machine has."""
    import torch
    import torchvision

    from cval_torch.pool.memory import available_memory

    devices = [f"cuda:{index} {torch.cuda.get_device_name(index)}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    memory = available_memory()
    return {
        "cval_torch": metadata.version("cval_torch"),
        "python": f"{platform.python_version()}, {sys.executable}",
        "torch": f"{torch.__version__}, torchvision {torchvision.__version__}",
        "devices": ", ".join([*devices, f"cpu with {torch.get_num_threads()} threads"]),
        "memory": "unknown" if memory is None else f"{memory / 1e9:.1f} GB available",
        "disk": f"{shutil.disk_usage(os.getcwd()).free / 1e9:.1f} GB free here",  # noqa: PTH109
        "extras": {name: _state_of(modules) for name, modules in _EXTRAS.items()},
    }


def _state_of(modules: list[str]) -> str:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return "is missing" if missing else "is there"


def _broken() -> list[str]:
    """What is installed and does not work."""
    import torch
    import torchvision  # noqa: F401, its operators are tried

    try:
        torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except (RuntimeError, AttributeError) as error:
        return [f"torchvision's operators do not work with this torch: {str(error).splitlines()[0]}"]
    return []


def _ask_service() -> str | None:
    from cval_torch.service.client.connection import CVALConnection

    try:
        CVALConnection(timeout=10).dataset().get_all()
    except CvalError as error:
        return str(error)
    return None
