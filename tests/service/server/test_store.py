"""What the server keeps on the disk."""

from __future__ import annotations

from pathlib import Path

from own_server import KEY, serving_here
from server_calls import OTHER, SAMPLING, Api, sampling, vector

from cval_torch.service.server.settings import Limits


def test_an_upload_is_stored_whole_or_not_at_all(api: Api) -> None:
    path = f"/dataset/{api.dataset()}/test/embeddings"
    answer = api("POST", path, [vector(1.0), vector(1e39, frame_id="b")])
    assert answer.status_code == 422
    assert "frame 'b' has a number that float32 cannot hold" in answer.json()["detail"]
    assert api("GET", path).json() == []
    api("POST", path, [vector(1.0)])
    assert api("DELETE", path).status_code == 200
    assert api("GET", path).json() == []


def test_the_oldest_finished_tasks_of_a_key_are_forgotten(tmp_path: Path) -> None:
    with serving_here(tmp_path, Limits(finished_tasks=3), keys=[(None, KEY), ("second", OTHER)]) as url:
        api, other = Api(url), Api(url, OTHER)
        kept = other("POST", SAMPLING, sampling()).json()
        tasks = [api("POST", SAMPLING, sampling()).json() for _ in range(5)]
        assert api("GET", "/results").json() == tasks[:1:-1]
        assert api("GET", f"/result/{tasks[1]['task_id']}").status_code == 404
        assert api("GET", f"/result/{tasks[2]['task_id']}").json() == tasks[2]
        assert other("GET", "/results").json() == [kept]
        api.session.close()
        other.session.close()
