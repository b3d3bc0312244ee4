"""The built wheel, in an environment of its own and away from the checkout, meters a request."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.conftest import ROOT

METER_A_REQUEST = """
import asyncio, json
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from ducto_redis import AsyncCreditManager
from ducto_redis.middleware import MeteringMiddleware

USAGE = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}
ANSWER = {"role": "assistant", "content": "Hello"}


async def complete(request):
    return JSONResponse({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o", "usage": USAGE,
        "choices": [{"index": 0, "finish_reason": "stop", "message": ANSWER}],
    })


async def post(app, path, body):
    sent = []

    async def receive():
        return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": [(b"content-type", b"application/json")], "server": ("test", 80), "client": ("test", 1), "state": {},
    }
    await app(scope, receive, send)
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


async def main():
    async with AsyncCreditManager.from_url("memory://") as manager:
        await manager.publish_pricing({
            "version": 1, "models": {"gpt-4o": "input_tokens * 0.001 + output_tokens * 0.002"},
        })
        await manager.add_credits("u1", 10)
        app = Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"])])
        app.add_middleware(MeteringMiddleware, manager=manager, account=lambda scope: "u1")
        body = {"model": "gpt-4o", "max_tokens": 500, "messages": [{"role": "user", "content": "Hi"}]}
        status, headers = await post(app, "/v1/chat/completions", body)
        balance = await manager.get_balance("u1")
        print(status, headers.get("x-credits-charged"), balance.balance == 8)


asyncio.run(main())
"""

LOCATE = """
import ducto_redis, ducto_redis.middleware
from ducto_redis.engine.scripts import load_scripts
print(len(load_scripts()["reserve"].text) > 0, ducto_redis.__file__)
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment."""
    folder = tmp_path_factory.mktemp("environment")
    run(Path(sys.executable), "-m", "venv", str(folder))
    return folder


def run(python: Path, *arguments: str, cwd: Path | None = None) -> str:
    """Run Python away from the checkout, unless told otherwise, and without hints at it; returns what it prints."""
    hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    done = subprocess.run(
        [python, *arguments],
        cwd=cwd or python.parent,
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if name not in hidden},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.mark.timeout(300)
def test_installed_wheel_meters_a_request(environment: Path, wheel: Path) -> None:
    """Installed with the extra `memory`, the wheel finds middleware and scripts, and charges exactly what was used."""
    python = environment / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", f"ducto-redis[memory] @ {wheel.as_uri()}")
    assert run(python, "-c", LOCATE).startswith(f"True {environment}")
    assert run(python, "-W", "error", "-c", METER_A_REQUEST) == "200 2 True"


@pytest.mark.timeout(300)
def test_pytest_of_a_project_is_left_alone(environment: Path, wheel: Path, tmp_path: Path) -> None:
    """Beside every extra that `[all]` has, and without pytest-asyncio, pytest finds an empty project empty."""
    python = environment / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", f"ducto-redis[all] @ {wheel.as_uri()}", "pytest")
    done = subprocess.run([python, "-W", "error", "-m", "pytest"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (pytest.ExitCode.NO_TESTS_COLLECTED, "")
    assert "plugins: " in done.stdout
    assert "ducto-redis" in done.stdout
    assert "warning" not in done.stdout
    assert "no tests ran" in done.stdout


@pytest.mark.timeout(300)
def test_editable_install(environment: Path, wheel: Path) -> None:
    """An editable install takes middleware and scripts from the checkout."""
    python = environment / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--editable", str(ROOT))
    assert run(python, "-c", LOCATE) == f"True {ROOT / 'ducto_redis' / '__init__.py'}"
