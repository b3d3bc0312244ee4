"""Findings on a server that answers with this or that."""

import pytest

from ducto_redis.doctor.server import examine_server
from ducto_redis.store import store_from_url


@pytest.mark.parametrize(
    ("info", "status"),
    [
        ({"redis_version": "7.0.0"}, "ok"),
        ({"redis_version": "6.2.14"}, "error"),
        ({"redis_version": "10.0.0"}, "ok"),
        ({"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "8.1.0"}, "ok"),
        ({"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "7.2.5"}, "ok"),
        ({}, "error"),
    ],
)
def test_versions(
    info: dict[str, str], status: str, valkey_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis from 7.0 and Valkey from 7.2 on are supported; versions are compared as numbers."""
    store = store_from_url(valkey_url, namespace=namespace, blocking=True)
    monkeypatch.setattr(store.redis(), "info", lambda: info)
    findings = {finding.check: finding for finding in examine_server(store)}
    assert findings["version"].status == status


@pytest.mark.parametrize(("seconds", "status"), [(0, "ok"), (30, "warning"), (-30, "warning")])
def test_clock(seconds: int, status: str, valkey_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server whose clock differs from this machine's by more than a second is a warning."""
    store = store_from_url(valkey_url, namespace=namespace, blocking=True)
    time = store.redis().time
    monkeypatch.setattr(store.redis(), "time", lambda: (time()[0] + seconds, time()[1]))
    findings = {finding.check: finding for finding in examine_server(store)}
    assert findings["clock"].status == status
