"""The benchmark of the diversity strategies: it runs, says what is not installed, and compares like with like."""

from __future__ import annotations

import dataclasses
import importlib.util

import pytest
import torch

import diversity
from diversity_peers import STRATEGIES, Contender, Problem

PEERS = [(name, peer) for name, strategy in STRATEGIES.items() for peer in strategy.peers]


@pytest.fixture
def problem() -> Problem:
    weights = torch.rand(300, generator=torch.Generator().manual_seed(1)) + 0.1
    return Problem(diversity.make_points(300, 16, "scenes"), weights, 6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "peer"), PEERS, ids=[f"{name}: {peer.name}" for name, peer in PEERS])
def test_a_peer_answers_the_same_question(name: str, peer: Contender, problem: Problem) -> None:
    if importlib.util.find_spec(peer.needs) is None:
        pytest.skip(f"{peer.needs} is not installed")
    strategy = STRATEGIES[name]
    theirs, ours = peer.choose(problem), strategy.ours.choose(problem)
    assert len(theirs) == 6 == len(ours)
    judged = ours if strategy.ours.judged is None else strategy.ours.judged(problem)
    ratio = problem.objective(strategy.objective, theirs) / problem.objective(strategy.objective, judged)
    assert 0.5 < ratio < 2
    if ("torch" in peer.name and name != "typicality") or peer.needs == "apricot":
        assert theirs.tolist() == ours.tolist()


def test_objectives_against_loops(problem: Problem) -> None:
    rows = torch.tensor([3, 70, 200])
    pairs = (problem.points.double()[:, None] - problem.points.double()).square().sum(2)
    nearest = pairs[:, rows].amin(1)
    spread = [sorted(pairs[row].sqrt().tolist())[1:21] for row in rows.tolist()]
    expected = {
        "radius": float(nearest.amax().sqrt()),
        "cost": float(nearest.sum()),
        "weighted cost": float((nearest * problem.weights).sum()),
        "spread": sum(map(sum, spread)) / 60,
    }
    for name, value in expected.items():
        assert problem.objective(name, rows) == pytest.approx(value, rel=1e-4)
    assert problem.objective("cost", problem.points[rows]) == pytest.approx(expected["cost"], rel=1e-4)


def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With a peer that cannot do the size, and one that is not there."""
    centre = STRATEGIES["k_center"]
    plain, absent = (
        dataclasses.replace(centre.peers[2], most=100),
        Contender("another", centre.ours.choose, "not_there"),
    )
    monkeypatch.setitem(STRATEGIES, "k_center", dataclasses.replace(centre, peers=(plain, absent)))
    diversity.main(["--rows", "300", "--width", "16", "--n", "20", "--runs", "1", "--strategies", "k_center"])
    lines = [line.strip("|").split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("| k_")]
    cells = [[cell.strip() for cell in line] for line in lines]
    assert [line[1] for line in cells] == ["ours", "another", "ours", plain.name]
    assert [line[2] for line in cells] == ["300 x 16, 20", "", "100 x 16, 10", "100 x 16, 10"]
    assert cells[1][3] == "not installed"
    assert cells[3][7:] == ["1.0000", "yes"]
    assert {len(line) for line in cells} == {9}
