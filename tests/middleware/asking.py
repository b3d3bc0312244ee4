"""Clients that ask with an Idempotency-Key, and an application that counts how often it ran."""

import asyncio
import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.middleware.asgi import CHAT, CHAT_REQUEST, Answer, scope

COST = Decimal("0.21")
ANSWER_KEYS = [b"k" * 32]


class Model:
    """An application that counts its runs, and waits in each of them until it is let go.

    Attributes:
        runs: how often it ran.
        running: how many of the runs are under way.
        most: how many were at the same time.
    """

    def __init__(self, answer: ASGIApp | Sequence[ASGIApp], *, open: bool = True) -> None:
        self._answers = list(answer) if isinstance(answer, Sequence) else None
        self._answer = answer
        self.runs = self.running = self.most = 0
        self.gate = asyncio.Event()
        if open:
            self.gate.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.runs += 1
        self.running += 1
        self.most = max(self.most, self.running)
        answer: Any = self._answers[self.runs - 1] if self._answers is not None else self._answer
        try:
            await self.gate.wait()
        finally:
            self.running -= 1  # from its answer on it may run again
        await answer(scope, receive, send)

    async def has_run(self, times: int = 1) -> bool:
        return self.runs >= times


class Asking:
    """A client that stays until it leaves."""

    def __init__(self, app: ASGIApp, key: str | None, body: Any = None, **more: Any) -> None:
        self.answer = Answer()
        self._app = app
        self._incoming: asyncio.Queue[Message] = asyncio.Queue()
        headers = dict(more.pop("headers", {}))
        if key is not None:
            headers["Idempotency-Key"] = key
        self._scope = scope(more.pop("path", CHAT), headers=headers, **more)
        encoded = json.dumps(CHAT_REQUEST if body is None else body).encode()
        self._incoming.put_nowait({"type": "http.request", "body": encoded, "more_body": False})
        self.task = asyncio.create_task(self._ask())

    def leave(self) -> None:
        self._incoming.put_nowait({"type": "http.disconnect"})  # which a server says once to whoever asks first

    async def _ask(self) -> Answer:
        await self._app(self._scope, self._incoming.get, self._send)
        return self.answer

    async def _send(self, message: Message) -> None:
        self.answer.messages.append(message)


async def ask(app: ASGIApp, key: str | None, body: Any = None, **more: Any) -> Answer:
    """Ask, and wait for the whole answer."""
    return await Asking(app, key, body, **more).task


def refused(answer: Answer) -> tuple[int, str, str]:
    return answer.status, answer.error["code"], answer.headers["x-should-retry"]
