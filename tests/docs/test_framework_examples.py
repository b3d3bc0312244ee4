"""The example of each framework, behind a real uvicorn: a chat, a stream, an endpoint with its own price, refusals."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import httpx
import openai
import pytest

from tests.middleware.serving import serve

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
# 9 tokens in, 3 out.
CHAT = "0.0525"


@pytest.fixture(params=["starlette", "fastapi", "litestar", "django"])
def example(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of an example, as `uvicorn starlette_app:app` imports it."""
    monkeypatch.delenv("DUCTO_REDIS_URL", raising=False)
    name = f"{request.param}_app"
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


async def test_example(example: ModuleType) -> None:
    """Everything that an example shows happens, and the account is charged for it to the last micro-credit."""
    async with serve(example.app, lifespan="on") as port:
        url = f"http://127.0.0.1:{port}"
        async with (
            httpx.AsyncClient(base_url=url, headers={"x-user": "ann"}) as http,
            openai.AsyncOpenAI(api_key="k", base_url=f"{url}/v1", default_headers={"x-user": "ann"}) as client,
        ):
            question = {"model": "gpt-4o", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}]}
            answer = await http.post("/v1/chat/completions", json=question)
            assert (answer.status_code, answer.headers["x-credits-charged"]) == (200, CHAT)

            stream = await client.chat.completions.create(
                model="gpt-4o", messages=[{"role": "user", "content": "Hi"}], max_tokens=50, stream=True
            )
            assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "Hello!"

            rendered = await http.post("/render", params={"seconds": 12})
            assert rendered.json() == {"picture": "a picture"}
            assert rendered.headers["x-credits-charged"] == "1.2"
            assert rendered.headers["x-credits-remaining"] == "3.695"

            refused = await http.post("/render", params={"seconds": 1000})
            assert (refused.status_code, refused.json()["error"]["code"]) == (402, "insufficient_credits")
            assert refused.headers["x-should-retry"] == "false"
            with pytest.raises(openai.APIStatusError) as caught:
                await client.chat.completions.create(model="gpt-4o", messages=[], max_tokens=1_000_000)
            assert caught.value.status_code == 402
            nobody = await http.post("/v1/chat/completions", json=question, headers={"x-user": ""})
            assert nobody.status_code == 401

        balance = await example.manager.get_balance("ann")
        assert (f"{balance.available.normalize():f}", balance.held) == ("3.695", 0)
