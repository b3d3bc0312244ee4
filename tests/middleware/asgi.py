"""A server that is a function: it drives an application with exact messages, and keeps what the application sent."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

CHAT = "/v1/chat/completions"


class Answer:
    """What an application sent."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode().lower(): value.decode() for name, value in self.messages[0].get("headers", ())}

    @property
    def body(self) -> bytes:
        return b"".join(bytes(message.get("body", b"")) for message in self.messages[1:])

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = json.loads(self.body)["error"]
        return error

    @property
    def credits(self) -> dict[str, str]:
        return {name: value for name, value in self.headers.items() if name.startswith("x-credits-")}


def scope(path: str = CHAT, method: str = "POST", headers: dict[str, str] | None = None, **more: Any) -> Scope:
    encoded = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "method": method,
        "path": path, "raw_path": path.encode(), "root_path": "", "query_string": b"", "headers": encoded,
        "scheme": "http", "server": ("test", 80), "client": ("test", 1), "state": {}, **more,
    }  # fmt: skip


def request_messages(body: bytes) -> list[Message]:
    return [{"type": "http.request", "body": body, "more_body": False}]


async def call(
    app: ASGIApp,
    body: Any = None,
    *,
    path: str = CHAT,
    method: str = "POST",
    headers: dict[str, str] | None = None,
    messages: Iterable[Message] | None = None,
    on_send: Callable[[Message], None] | None = None,
    answer: Answer | None = None,
    **more: Any,
) -> Answer:
    """Run one request to its end. `on_send` may raise, as a server does whose client has gone."""
    answer = Answer() if answer is None else answer
    encoded = body if isinstance(body, bytes) else json.dumps(CHAT_REQUEST if body is None else body).encode()
    incoming = iter(request_messages(encoded) if messages is None else messages)

    async def receive() -> Message:
        return next(incoming, {"type": "http.disconnect"})

    async def send(message: Message) -> None:
        if on_send is not None:
            on_send(message)
        answer.messages.append(message)

    await app(scope(path, method, headers, **more), receive, send)
    return answer


CHAT_REQUEST = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 100}


def completion(prompt: int = 10, output: int = 20, text: str = "hi", **more: Any) -> dict[str, Any]:
    """A chat completion."""
    return {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": output},
        **more,
    }


def chunk(text: str, **more: Any) -> bytes:
    """An event of a streamed chat completion."""
    return event({"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}}], **more})


def usage_chunk(prompt: int = 10, output: int = 20) -> bytes:
    """The event that reports the usage of a stream."""
    return event({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": output}})


def event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def sending(
    *pieces: bytes,
    status: int = 200,
    content_type: str = "application/json",
    end: bool = True,
    error: BaseException | None = None,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> ASGIApp:
    """An application that sends these pieces of a body, then its end, or raises."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        fields = [(b"content-type", content_type.encode()), *headers]
        await send({"type": "http.response.start", "status": status, "headers": fields})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if error is not None:
            raise error
        if end:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    return app


def answering(document: Any, status: int = 200) -> ASGIApp:
    """An application that answers with JSON in one message."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = json.dumps(document).encode()
        fields = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": body})

    return app


def streaming(*pieces: bytes, **options: Any) -> ASGIApp:
    """An application that streams server-sent events."""
    return sending(*pieces, content_type="text/event-stream", **options)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something is so; the test's own timeout ends the wait."""
    while True:
        if await condition():
            return
        await asyncio.sleep(0.01)
