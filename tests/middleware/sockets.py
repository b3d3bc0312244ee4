"""A WebSocket server that is a function, and the events of a Realtime session."""

import asyncio
import json
from typing import Any

from starlette.types import ASGIApp, Message, Scope

REALTIME = "/v1/realtime"
DENIALS: dict[str, dict[str, str]] = {"websocket.http.response": {}}


def handshake(path: str = REALTIME, query: bytes = b"model=voice", **more: Any) -> Scope:
    return {
        "type": "websocket", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "path": path,
        "raw_path": path.encode(), "root_path": "", "query_string": query, "headers": [], "scheme": "ws",
        "server": ("test", 80), "client": ("test", 1), "subprotocols": [], "state": {}, "extensions": DENIALS, **more,
    }  # fmt: skip


class Connection:
    """One connection: what the client says, and what it gets."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.said: asyncio.Queue[Message] = asyncio.Queue()
        self.left = False
        self.said.put_nowait({"type": "websocket.connect"})

    def say(self, event: dict[str, Any]) -> None:
        self.said.put_nowait({"type": "websocket.receive", "text": json.dumps(event)})

    def leave(self) -> None:
        self.left = True
        self.said.put_nowait({"type": "websocket.disconnect", "code": 1001})

    async def receive(self) -> Message:
        return await self.said.get()

    async def send(self, message: Message) -> None:
        if self.left:
            raise OSError("the client has left")
        self.sent.append(message)
        if message["type"] == "websocket.close":
            self.said.put_nowait({"type": "websocket.disconnect", "code": message["code"]})

    @property
    def types(self) -> list[str]:
        return [message["type"].removeprefix("websocket.") for message in self.sent]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(message["text"]) for message in self.sent if message["type"] == "websocket.send"]

    async def run(self, app: ASGIApp, scope: Scope | None = None) -> "Connection":
        await app(handshake() if scope is None else scope, self.receive, self.send)
        return self


def text_message(event: dict[str, Any]) -> Message:
    return {"type": "websocket.send", "text": json.dumps(event)}


def created(response_id: str = "resp_1") -> dict[str, Any]:
    return {"type": "response.created", "event_id": "e", "response": {"id": response_id, "status": "in_progress"}}


def done(
    used: tuple[int, int] | None = (10, 20), response_id: str = "resp_1", status: str = "completed", **usage: Any
) -> dict[str, Any]:
    """The event that ends a response; `used` are the tokens that it reports of input and output."""
    reported = None
    if used is not None:
        reported = {"total_tokens": sum(used), "input_tokens": used[0], "output_tokens": used[1], **usage}
    response: dict[str, Any] = {
        "object": "realtime.response",
        "id": response_id,
        "status": status,
        "output": [],
        "usage": reported,
    }
    return {"type": "response.done", "event_id": "e", "response": response}


def transcribed(usage: Any, item_id: str = "item_1") -> dict[str, Any]:
    return {
        "type": "conversation.item.input_audio_transcription.completed", "event_id": "e", "item_id": item_id,
        "content_index": 0, "transcript": "hello", "usage": usage,
    }  # fmt: skip


def saying(*events: dict[str, Any], then: BaseException | None = None, closes: bool = True) -> ASGIApp:
    """An application that accepts, sends these events, then closes, raises or waits until its client has left."""

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        for event in events:
            await send(text_message(event))
        if then is not None:
            raise then
        if closes:
            await send({"type": "websocket.close", "code": 1000})
        while (await receive())["type"] != "websocket.disconnect":
            pass

    return app
