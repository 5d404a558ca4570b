"""Who gets in, and whose data are whose."""

from __future__ import annotations

import hmac
from pathlib import Path

import pytest
from own_server import KEY, serving_here
from server_calls import OTHER, SAMPLING, Api, sampling, vector

from cval_torch.errors import InvalidInputError
from cval_torch.service.server.keys import KeyFile, KeyRing, read_key_file


def test_each_key_has_its_own_data(api: Api, other: Api) -> None:
    mine = api.dataset()
    assert api("POST", f"/dataset/{mine}/test/embeddings", [vector(1.0)]).status_code == 200
    task = api("POST", SAMPLING, sampling(dataset_id=mine)).json()["task_id"]
    for method, path, content in [
        ("GET", f"/dataset/{mine}", None),
        ("PUT", f"/dataset/{mine}", {"dataset_name": "stolen"}),
        ("DELETE", f"/dataset/{mine}", None),
        ("GET", f"/dataset/{mine}/test/embeddings", None),
        ("POST", f"/dataset/{mine}/test/embeddings", [vector(2.0)]),
        ("DELETE", f"/dataset/{mine}/test/embeddings", None),
        ("GET", f"/dataset/{mine}/test/embedding/a/0", None),
        ("DELETE", f"/dataset/{mine}/test/embedding/a/0", None),
        ("POST", SAMPLING, sampling(dataset_id=mine)),
        ("GET", f"/result/{task}", None),
    ]:
        assert other(method, path, content).status_code == 404, (method, path)
    assert mine not in other("GET", "/datasets/all").text
    assert task not in other("GET", "/results").text
    assert api("GET", f"/dataset/{mine}/test/embedding/a/0").json() == vector(1.0)


def test_keys_are_kept_as_digests_and_every_one_is_compared(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [path for path in data.rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
    keys = KeyRing([(None, KEY), ("second", OTHER), (None, "third")], salt=b"s")
    assert KEY not in repr(vars(keys)) + repr(keys)
    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr("hmac.compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))
    assert keys.owner_of(f"user_api_key:{OTHER}".encode()) == "second"
    assert len(compared) == 3
    assert all(len(a) == len(b) == 32 for a, b in compared)
    same = KeyRing([(None, KEY)], salt=b"s").owner_of(f"user_api_key:{KEY}".encode())
    assert same == keys.owner_of(f"user_api_key:{KEY}".encode())


@pytest.mark.parametrize(
    "keys", [[], [(None, "")], [(None, "a b")], [(None, "a\n")], [(None, "same"), ("x", "same")], [(None, "é")]]
)
def test_bad_keys_are_refused_unseen(keys: list[tuple[str | None, str]]) -> None:
    with pytest.raises(InvalidInputError, match="API key") as caught:
        KeyRing(keys, salt=b"s")
    assert "same" not in str(caught.value)


def test_keys_come_and_go_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("cval_torch.service.server.keys.SECONDS_BETWEEN_LOOKS", 0.0)
    file = tmp_path / "keys"
    file.write_text(f"alice {KEY}\n")
    with serving_here(tmp_path / "data", keys=file) as url:

        def statuses() -> list[int]:
            return [Api(url, key)("GET", "/strategies").status_code for key in (KEY, OTHER)]

        assert statuses() == [200, 401]
        file.write_text(f"alice {KEY}\nbob {OTHER}\n")
        assert statuses() == [200, 200]
        file.write_text("# nobody\n")
        assert statuses() == [401, 401], "the last key is revoked, too"
        file.write_text(f"alice {KEY}\nbob {OTHER}\n")
        assert statuses() == [200, 200]
        for broken in ("a b c\n", f"{KEY}\n{KEY}\n"):
            file.write_text(broken)
            assert statuses() == [200, 200], "the keys stay as they were"
        file.unlink()
        assert statuses() == [200, 200]
        file.write_text(f"bob {OTHER}\n")
        assert statuses() == [401, 200]
    assert "the keys stay as they were" in caplog.text
    assert KEY not in caplog.text
    file.write_text("")
    with pytest.raises(InvalidInputError, match="at least one API key"):
        KeyFile(file, salt=b"s")


def test_a_key_file_names_owners(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# team\nalice  key-a\n\n  key-b\n")
    assert read_key_file(file) == [("alice", "key-a"), (None, "key-b")]
    file.write_text("a b c")
    with pytest.raises(InvalidInputError, match=r"line 1 of .* it has 3 words"):
        read_key_file(file)
