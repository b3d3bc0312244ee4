"""A stand-in for a provider: a real server, which keeps what it was asked and answers as it is told."""

import asyncio
import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send

from tests.middleware.asgi import DONE, chunk, completion, event, usage_chunk

WHOLE = {"id": "1", "created": 1, "model": "m"}
ANTHROPIC_USAGE = {"input_tokens": 10, "output_tokens": 20}
ANTHROPIC_MESSAGE = {"id": "1", "type": "message", "role": "assistant", "model": "m", "stop_reason": None}

RESPONSE = {"id": "resp_1", "object": "response", "model": "m", "output": [], "background": True}


class Provider:
    """Answers as OpenAI and Anthropic do: 10 tokens in, 20 out.

    Attributes:
        bodies: what it was asked.
        failures: statuses that it answers with first.
        endless: whether its streams stop after the first piece, and stay open.
        breaks: whether its answers break off.
        compressed: whether its answers are compressed.
        left: set when a client left an endless stream.
    """

    def __init__(self) -> None:
        self.url = ""
        self.reset()

    def reset(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.failures: list[int] = []
        self.endless = False
        self.breaks = False
        self.compressed = False
        self.left = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        raw = b""
        while True:
            message = await receive()
            raw += message.get("body", b"")
            if not message.get("more_body"):
                break
        body = json.loads(raw) if raw else {}
        self.bodies.append(body)
        if self.failures:
            status = self.failures.pop(0)
            await self._send(send, status, "application/json", [json.dumps({"error": {"message": "no"}}).encode()])
        elif body.get("stream"):
            pieces = anthropic_events() if scope["path"].endswith("/messages") else openai_events(body)
            await self._stream(receive, send, pieces)
        else:
            document = json.dumps(document_for(scope["path"])).encode()
            await self._send(send, 200, "application/json", [document[:20], document[20:]])

    async def _stream(self, receive: Receive, send: Send, pieces: list[bytes]) -> None:
        if not self.endless:
            await self._send(send, 200, "text/event-stream; charset=utf-8", pieces)
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": pieces[0], "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left.set()

    async def _send(self, send: Send, status: int, content_type: str, pieces: list[bytes]) -> None:
        headers = [(b"content-type", content_type.encode())]
        if self.compressed:
            pieces = [gzip.compress(b"".join(pieces))]
            headers.append((b"content-encoding", b"gzip"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            if self.breaks:
                raise ConnectionError("the provider breaks off")
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def openai_events(body: dict[str, Any]) -> list[bytes]:
    pieces = [chunk("x" * 20, **WHOLE), chunk("y" * 20, **WHOLE)]
    if body.get("stream_options", {}).get("include_usage"):
        pieces.append(usage_chunk(10, 20))
    return [*pieces, DONE]


def anthropic_events() -> list[bytes]:
    def named(data: dict[str, Any]) -> bytes:
        return b"event: " + data["type"].encode() + b"\n" + event(data)

    start = {**ANTHROPIC_MESSAGE, "content": [], "usage": {"input_tokens": 10, "output_tokens": 1}}
    return [
        named({"type": "message_start", "message": start}),
        named({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        named({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x" * 20}}),
        named({"type": "content_block_stop", "index": 0}),
        named({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 20}}),
        named({"type": "message_stop"}),
    ]


def document_for(path: str) -> dict[str, Any]:
    if path.endswith("/models"):
        return {"object": "list", "data": []}
    if path.endswith("/embeddings"):
        data = [{"object": "embedding", "index": 0, "embedding": [0.5]}]
        return {"object": "list", "model": "m", "data": data, "usage": {"prompt_tokens": 10, "total_tokens": 10}}
    if path.endswith("/responses"):
        return {**RESPONSE, "status": "queued"}
    if "/responses/" in path:
        usage = {"input_tokens": 10, "output_tokens": 20, "total_tokens": 30}
        return {**RESPONSE, "status": "completed", "usage": usage}
    if path.endswith("/messages"):
        content = [{"type": "text", "text": "hello"}]
        return {**ANTHROPIC_MESSAGE, "content": content, "stop_reason": "end_turn", "usage": ANTHROPIC_USAGE}
    if ":generateContent" in path:
        part = {"content": {"role": "model", "parts": [{"text": "hello"}]}, "finishReason": "STOP"}
        usage = {"promptTokenCount": 10, "candidatesTokenCount": 20, "totalTokenCount": 30}
        return {"candidates": [part], "usageMetadata": usage}
    return completion(10, 20, text="hello", **WHOLE)


@contextmanager
def running(provider: Provider) -> Iterator[None]:
    """Serve the provider in a thread, with an event loop of its own."""
    server = uvicorn.Server(uvicorn.Config(provider, log_config=None, port=0, lifespan="off"))
    started = threading.Event()

    async def serve() -> None:
        task = asyncio.create_task(server.serve())
        while not server.started and not task.done():
            await asyncio.sleep(0.005)
        started.set()
        await task

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert started.wait(10)
        port = server.servers[0].sockets[0].getsockname()[1]
        provider.url = f"http://127.0.0.1:{port}"
        yield
    finally:
        server.should_exit = True
        thread.join()
