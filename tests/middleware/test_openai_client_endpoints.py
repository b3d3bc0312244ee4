"""The real openai client at the endpoints beside chats: completions, embeddings, pictures, sound, moderations."""

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import openai
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Scope

from ducto_redis import AsyncCreditManager
from ducto_redis.middleware import MeteringMiddleware
from ducto_redis.middleware.recognisers import DEFAULT_RECOGNISERS, OpenAIVideos
from tests.middleware.asgi import DONE, event
from tests.middleware.conftest import Accounts
from tests.middleware.serving import serve

# Every measure has its own digits in the price.
FORMULA = (
    "input_tokens * 0.000001 + output_tokens * 0.001 + image_output_tokens * 1 + images * 1000 + audio_seconds * 1e5"
    " + input_characters * 1e6 + video_seconds * 1e7"
)
SOUND = ("speech.mp3", b"\xff\xfb" * 8_000, "audio/mpeg")
PICTURE = ("otter.png", b"\x89PNG" * 100, "image/png")
COMPLETION_USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
IMAGE_USAGE = {
    "input_tokens": 50,
    "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
    "output_tokens": 900,
    "total_tokens": 950,
}


class Models:
    """A stand-in for models, which counts its requests and keeps the last one's body."""

    def __init__(self) -> None:
        self.requests = 0
        self.body = b""
        self.left = asyncio.Event()

    async def answer(self, request: Request) -> Response:
        self.requests += 1
        self.body = await request.body()
        path = request.url.path.removeprefix("/v1")
        streams = b'"stream":true' in self.body or b'name="stream"\r\n\r\ntrue' in self.body
        if streams or b'"sse"' in self.body:
            return StreamingResponse(self._pieces(path), media_type="text/event-stream")
        if path == "/audio/speech":
            return Response(b"\xff\xfb" * 100, media_type="audio/mpeg")
        if b'name="response_format"\r\n\r\nsrt' in self.body:
            return PlainTextResponse("1\n00:00:00,000 --> 00:00:03,200\nhi\n")
        return JSONResponse(self._document(path))

    def _document(self, path: str) -> dict[str, Any]:
        match path.split("/")[1:]:
            case ["completions"]:
                return {"id": "c", "choices": [{"index": 0, "text": "hello"}], "usage": COMPLETION_USAGE}
            case ["embeddings"]:
                return {"data": [{"embedding": "AACAPwAAAEA="}], "usage": {"prompt_tokens": 4, "total_tokens": 4}}
            case ["images", *_]:
                return {"created": 1, "data": [{"b64_json": "QUJD"}], "usage": IMAGE_USAGE}
            case ["audio", *_]:
                return {"text": "hello", "usage": {"type": "duration", "seconds": 3}}
            case ["videos"]:
                return {"id": "v", "object": "video", "status": "queued", "seconds": "8"}
            case _:
                return {"id": "m", "results": [{"flagged": False}]}

    async def _pieces(self, path: str) -> AsyncIterator[bytes]:
        try:
            for piece in self._events(path):
                yield event(piece)
            if b"forever" in self.body:
                await asyncio.Event().wait()
            if path == "/completions":
                yield event({"choices": [], "usage": COMPLETION_USAGE})
                yield DONE
        finally:
            self.left.set()

    def _events(self, path: str) -> list[dict[str, Any]]:
        match path.split("/")[1:]:
            case ["completions"]:
                return [
                    {"id": "c", "choices": [{"index": 0, "text": text, "finish_reason": None}]} for text in ("a", "b")
                ]
            case ["images", kind]:
                name = "image_generation" if kind == "generations" else "image_edit"
                return [
                    {"type": f"{name}.partial_image", "b64_json": "QUJD", "partial_image_index": 0},
                    {"type": f"{name}.completed", "b64_json": "QUJD", "usage": IMAGE_USAGE},
                ]
            case ["audio", "speech"]:
                usage = {"input_tokens": 4, "output_tokens": 60, "total_tokens": 64}
                return [{"type": "speech.audio.delta", "audio": "AAAA"}, {"type": "speech.audio.done", "usage": usage}]
            case _:
                usage = {"type": "tokens", "input_tokens": 20, "output_tokens": 5, "total_tokens": 25}
                return [
                    {"type": "transcript.text.delta", "delta": "hello"},
                    {"type": "transcript.text.done", "text": "hello", "usage": usage},
                ]


@pytest.fixture
def models() -> Models:
    return Models()


@pytest.fixture
async def client(manager: AsyncCreditManager, models: Models) -> AsyncIterator[openai.AsyncOpenAI]:
    await manager.publish_pricing({"version": 1, "models": {"m": FORMULA}})
    await manager.add_credits("rich", 10**9)

    def account(scope: Scope) -> str:
        return dict(scope["headers"]).get(b"authorization", b"").decode().removeprefix("Bearer ")

    app = Starlette(routes=[Route("/v1/{rest:path}", models.answer, methods=["POST"])])
    app.add_middleware(
        MeteringMiddleware, manager=manager, account=account, recognisers=[*DEFAULT_RECOGNISERS, OpenAIVideos()]
    )
    async with serve(app) as port, openai.AsyncOpenAI(api_key="rich", base_url=f"http://127.0.0.1:{port}/v1") as client:
        yield client


@pytest.fixture
async def charged(accounts: Accounts, manager: AsyncCreditManager) -> Any:
    async def charged() -> Decimal:
        await accounts.settled("rich")
        return Decimal(10**9) - (await manager.get_balance("rich")).balance

    return charged


async def test_completions(client: openai.AsyncOpenAI, charged: Any, models: Models) -> None:
    """Plain and streamed; the usage that only the middleware asks for does not reach the client."""
    plain = await client.completions.create(model="m", prompt="hi", max_tokens=50)
    assert plain.choices[0].text == "hello"
    assert await charged() == Decimal("0.007005")
    stream = await client.completions.create(model="m", prompt="hi", stream=True)
    parts = [part async for part in stream]
    assert [part.choices[0].text for part in parts] == ["a", "b"]
    assert json.loads(models.body)["stream_options"] == {"include_usage": True}
    assert await charged() == Decimal("0.01401")


async def test_completions_cancelled(client: openai.AsyncOpenAI, charged: Any, models: Models) -> None:
    """A stream that the client closes is charged for what came."""
    stream = await client.completions.create(model="m", prompt="forever", stream=True)
    await anext(stream)
    await stream.close()
    await models.left.wait()
    assert await charged() == Decimal("0.001003")  # a token of output, three of the prompt


async def test_embeddings(client: openai.AsyncOpenAI, charged: Any) -> None:
    """Of texts and of tokens."""
    for given in ("hello", ["hello", "you"], [1, 2, 3]):
        answer = await client.embeddings.create(model="m", input=given)
        assert answer.data[0].embedding == [1.0, 2.0]
    assert await charged() == 3 * Decimal("0.000004")


async def test_images(client: openai.AsyncOpenAI, charged: Any) -> None:
    """Made from words, edited from a form, and streamed."""
    made = await client.images.generate(model="m", prompt="otter")
    assert made.data is not None
    one = Decimal("1000") + 900 + Decimal("0.9") + Decimal("0.00005")
    assert await charged() == one
    edited = await client.images.edit(model="m", prompt="otter", image=[PICTURE, PICTURE])
    assert edited.data is not None
    assert await charged() == 2 * one
    kinds = [part.type async for part in await client.images.generate(model="m", prompt="otter", stream=True)]
    assert kinds == ["image_generation.partial_image", "image_generation.completed"]
    stream = await client.images.edit(model="m", prompt="otter", image=PICTURE, stream=True)
    assert [part.type async for part in stream] == ["image_edit.partial_image", "image_edit.completed"]
    assert await charged() == 4 * one


async def test_transcriptions(client: openai.AsyncOpenAI, charged: Any) -> None:
    """By the second, by tokens in a stream, by the last subtitle where nothing is reported."""
    plain = await client.audio.transcriptions.create(model="m", file=SOUND)
    assert plain.text == "hello"
    assert await charged() == 300_000
    stream = await client.audio.transcriptions.create(model="m", file=SOUND, stream=True)
    assert [part.type async for part in stream] == ["transcript.text.delta", "transcript.text.done"]
    assert await charged() == 300_000 + Decimal("0.00502")
    subtitles: Any = await client.audio.transcriptions.create(model="m", file=SOUND, response_format="srt")
    assert "-->" in subtitles
    assert await charged() == 700_000 + Decimal("0.00502") + Decimal("0.00004") + Decimal("0.009")


async def test_speech(client: openai.AsyncOpenAI, charged: Any) -> None:
    """Sound is charged by its characters, and counted tokens; a stream of events by what it reports."""
    sound = await client.audio.speech.create(model="m", voice="alloy", input="hello")
    assert len(sound.content) == 200
    assert await charged() == 5 * 10**6 + Decimal("0.007002")
    async with client.audio.speech.with_streaming_response.create(
        model="m", voice="alloy", input="hello", stream_format="sse"
    ) as streamed:
        assert b"speech.audio.done" in await streamed.read()
    assert await charged() == 10 * 10**6 + Decimal("0.007002") + Decimal("0.060004")


async def test_videos(client: openai.AsyncOpenAI, charged: Any) -> None:
    """A job is charged when it is taken on."""
    # The client's own method for it is deprecated.
    job = await client.post("/videos", cast_to=object, body={"model": "m", "prompt": "otter", "seconds": "4"})
    assert isinstance(job, dict)
    assert job["status"] == "queued"
    assert await charged() == 8 * 10**7


async def test_moderations_are_free(client: openai.AsyncOpenAI, charged: Any) -> None:
    """Nobody pays for them, nor needs credits."""
    answer = await client.with_options(api_key="nobody").moderations.create(input="hello")
    assert not answer.results[0].flagged
    assert await charged() == 0


async def test_refused(client: openai.AsyncOpenAI, models: Models) -> None:
    """Who can't pay the worst case is told so at once, with forms too, and nothing runs."""
    poor = client.with_options(api_key="poor")
    requests = [
        poor.embeddings.create(model="m", input="hi"),
        poor.images.generate(model="m", prompt="otter"),
        poor.images.edit(model="m", prompt="otter", image=PICTURE),
        poor.audio.transcriptions.create(model="m", file=SOUND),
        poor.audio.speech.create(model="m", voice="alloy", input="hello"),
        poor.post("/videos", cast_to=object, body={"model": "m", "prompt": "otter"}),
    ]
    with pytest.raises(openai.APIStatusError, match="may cost"):
        await poor.completions.create(model="m", prompt="hi")
    for request in requests:
        with pytest.raises(openai.APIStatusError) as refused:
            await request
        assert refused.value.status_code == 402
        assert refused.value.code == "insufficient_credits"
        body: Any = refused.value.body
        assert body.get("max_tokens") is None  # no limit on tokens would help
    with pytest.raises(openai.BadRequestError, match="no price"):
        await client.images.edit(model="unheard-of", prompt="otter", image=PICTURE)
    assert models.requests == 0
