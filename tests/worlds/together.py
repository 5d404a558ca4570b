"""What several processes do together, a scenario after another.

Run by torchrun, or with `--fork N`, which makes N processes of one. Each of them writes what came of the scenarios, a
value or an error, to `<rank>.json` in the folder that it is given.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from tiny_rcnn import loader_of, make_faster_rcnn

from cval_torch import Pool, extract
from cval_torch.extraction import passes as extraction

Scenario = Callable[[Path], Any]
SCENARIOS: dict[str, Scenario] = {}


def scenario(work: Scenario) -> Scenario:
    SCENARIOS[work.__name__] = work
    return work


def rank() -> int:
    return dist.get_rank()


def run(dataset: Any, *, loading: dict[str, Any] | None = None, **options: Any) -> Pool:
    return extract(make_faster_rcnn(), loader_of(dataset, **(loading or {})), **{"progress": False, **options})


def outcome_of(work: Scenario, root: Path) -> Any:
    try:
        return {"value": work(root)}
    except BaseException as error:
        return {"error": [type(error).__name__, str(error)]}


def main(root: Path, names: Sequence[str]) -> None:
    torch.set_num_threads(1)
    extraction._FIRST_ROUND = 0.05  # many rounds, in passes of less than a second
    dist.init_process_group("gloo")
    outcomes = {}
    for name in names or [name for name in SCENARIOS if name != "a_rank_dies"]:
        outcomes[name] = outcome_of(SCENARIOS[name], root)
        (root / f"{rank()}.json").write_text(json.dumps(outcomes))
    if "a_rank_dies" not in names:
        dist.destroy_process_group()


def fork(work: Callable[[], Any], count: int) -> list[int]:
    """What each of `count` processes ended with: 0, or minus the signal that killed it."""
    os.environ["WORLD_SIZE"] = str(count)
    children = []
    for rank_ in range(count):
        if (child := os.fork()) == 0:
            os.environ["RANK"] = str(rank_)
            code = 0
            try:
                work()
            except BaseException as error:
                print(f"rank {rank_}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                code = 1
            sys.stdout.flush()
            os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


if __name__ == "__main__":
    sys.modules["together"] = sys.modules[__name__]  # so that the scenarios register themselves here
    for module in ("together_sharing", "together_choosing", "together_folder"):
        importlib.import_module(module)
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--fork", type=int)
    given = parser.parse_args()
    if given.fork is None:
        main(given.root, given.names)
    else:
        print(json.dumps(fork(lambda: main(given.root, given.names), given.fork)))
