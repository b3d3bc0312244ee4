"""The examination of the Redis or Valkey servers. It uses INFO and TIME: CONFIG is often not allowed."""

import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import structs
from redis.exceptions import RedisError

from ducto_redis.display import counted
from ducto_redis.doctor.findings import Finding
from ducto_redis.engine.scripts import run_script
from ducto_redis.store import JournalledStore
from ducto_redis.store.cluster_client import ClusterClient

_OLDEST = {"Redis": (7, 0), "Valkey": (7, 2)}
_CLOCK_SECONDS = 1.0
_MEMORY_SHARE = 0.9


def examine_server(store: JournalledStore) -> Iterator[Finding]:
    """Yield findings on version, role, memory, persistence, scripts and clock; of a cluster, on those of every node."""
    client = store.redis()
    if isinstance(client, ClusterClient):
        yield from examine_cluster(client)
    else:
        yield from examine_node(client)
    yield _scripts(store)


def examine_node(client: Any) -> Iterator[Finding]:
    """Yield findings on version, role, memory, persistence and clock of one server."""
    info: Mapping[str, Any] = client.info()
    yield _version(info)
    if not info.get("cluster_enabled"):
        yield _role(info)
    yield _memory_policy(info)
    yield _memory(info)
    yield _persistence(info)
    yield _clock(client)


def examine_cluster(client: ClusterClient) -> Iterator[Finding]:
    """Yield findings on the cluster's state, the replicas of its primaries, and each node.

    A check that all nodes pass is one finding.
    """
    nodes = client.nodes()
    yield _cluster_state(client)
    yield from _replicas(client, len(nodes))
    by_check: dict[str, dict[str, Finding]] = {}
    for node, node_client in nodes.items():
        try:
            for finding in examine_node(node_client):
                by_check.setdefault(finding.check, {})[str(node)] = finding
        except RedisError as error:
            yield Finding(f"node {node}", "error", str(error), "check that it runs, and read the server's log")
    for check, found in by_check.items():
        if all(finding.status == "ok" for finding in found.values()):
            details = {finding.detail for finding in found.values()}
            detail = details.pop() if len(details) == 1 else f"ok on all {counted(len(found), 'node')}"
            yield Finding(check, "ok", detail)
            continue
        for name, finding in found.items():
            if finding.status != "ok":
                yield structs.replace(finding, check=f"{check} {name}")


def _cluster_state(client: ClusterClient) -> Finding:
    state: Mapping[str, str] = client.execute_command("CLUSTER INFO")
    if state["cluster_state"] != "ok":
        return Finding(
            "cluster", "error", f"its state is {state['cluster_state']}", "check that every slot has a running primary"
        )
    return Finding("cluster", "ok", f"{counted(len(client.primaries()), 'primary', 'primaries')} serve all slots")


def _replicas(client: ClusterClient, nodes: int) -> Iterator[Finding]:
    alone = [str(node) for node, primary in client.primaries().items() if not primary.info().get("connected_slaves")]
    if alone:
        yield Finding(
            "replicas", "warning", f"{', '.join(alone)} has none: its accounts depend on one server", "add replicas"
        )
    else:
        yield Finding("replicas", "ok", f"every primary has one, {counted(nodes, 'node')} in total")


def _version(info: Mapping[str, Any]) -> Finding:
    name = "Valkey" if info.get("server_name") == "valkey" else "Redis"
    # Valkey 7.2, the first version, has its number only in Redis' field.
    text = str(info.get("valkey_version") or info.get("redis_version", "0"))
    version = tuple(map(int, re.findall(r"\d+", text)[:2]))
    oldest = _OLDEST[name]
    if version < oldest:
        needed = " or ".join(f"{server} {major}.{minor}" for server, (major, minor) in _OLDEST.items())
        return Finding("version", "error", f"{name} {text}", f"use {needed}, or newer")
    return Finding("version", "ok", f"{name} {text}")


def _role(info: Mapping[str, Any]) -> Finding:
    if info.get("role") == "slave":
        return Finding("role", "error", "a replica, which takes no writes", "set DUCTO_REDIS_URL to the primary")
    return Finding("role", "ok", f"primary, {counted(info.get('connected_slaves', 0), 'replica')}")


def _memory_policy(info: Mapping[str, Any]) -> Finding:
    policy = info.get("maxmemory_policy")
    if policy is None:
        return Finding("eviction", "warning", "the server does not report its policy", "check that it is noeviction")
    if policy != "noeviction":
        return Finding(
            "eviction",
            "error",
            f"maxmemory-policy is {policy}: accounts can vanish",
            "set maxmemory-policy noeviction in the server's configuration",
        )
    return Finding("eviction", "ok", "maxmemory-policy is noeviction")


def _memory(info: Mapping[str, Any]) -> Finding:
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if not limit:
        return Finding("memory", "ok", f"{_mebibytes(used)} used, no limit")
    detail = f"{_mebibytes(used)} of {_mebibytes(limit)} used"
    if used > limit * _MEMORY_SHARE:
        return Finding("memory", "warning", detail, "give the server more: when it is full, nothing new is admitted")
    return Finding("memory", "ok", detail)


def _persistence(info: Mapping[str, Any]) -> Finding:
    if not info.get("aof_enabled"):
        return Finding(
            "append-only file",
            "warning",
            "off: a restart loses changes after the last snapshot",
            "set appendonly yes",
        )
    if info.get("aof_last_write_status", "ok") != "ok":
        return Finding("append-only file", "error", "the last write to it failed", "check the server's log and disk")
    return Finding("append-only file", "ok", "on")


def _scripts(store: JournalledStore) -> Finding:
    try:
        run_script(store.redis(), store.scripts["read_partition"], (store.namespace.meta(0),), ())
    except RedisError as error:
        return Finding("scripts", "error", f"Lua does not run: {error}", "allow this user EVALSHA and EVAL (ACL)")
    return Finding("scripts", "ok", "Lua runs")


def _clock(client: Any) -> Finding:
    before = time.time()
    seconds, microseconds = client.time()
    after = time.time()
    difference = seconds + microseconds / 1e6 - (before + after) / 2
    if abs(difference) - (after - before) / 2 > _CLOCK_SECONDS:
        way = "ahead of" if difference > 0 else "behind"
        return Finding(
            "clock",
            "warning",
            f"the server's clock is {abs(difference):.1f} s {way} this machine's",
            "leases follow the server's clock; synchronise both with a time server",
        )
    return Finding("clock", "ok", f"{abs(difference) * 1000:.0f} ms apart from this machine's")


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
