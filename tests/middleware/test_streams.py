"""Streams pass untouched, and are charged once, whatever becomes of them."""

import asyncio
import gzip
import json
from collections.abc import Callable
from decimal import Decimal

import pytest
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.middleware.asgi import (
    CHAT_REQUEST,
    DONE,
    Answer,
    call,
    chunk,
    completion,
    event,
    sending,
    streaming,
    usage_chunk,
)
from tests.middleware.conftest import Accounts

Metered = Callable[..., ASGIApp]

HELD = len(json.dumps(CHAT_REQUEST)) * Decimal("0.001") + 100 * Decimal("0.01")
# The messages of the recurring request, four bytes a token.
PROMPT = -(-len(json.dumps(CHAT_REQUEST["messages"])) // 4) * Decimal("0.001")


async def test_a_stream_is_charged_what_it_reports(metered: Metered, accounts: Accounts) -> None:
    """A stream passes message by message, says what is reserved, and is charged its usage."""
    pieces = [chunk("Hel"), chunk("lo"), usage_chunk(10, 20), DONE]
    answer = await call(metered(streaming(*pieces)))
    assert [message.get("body") for message in answer.messages[1:]] == [*pieces, b""]
    assert answer.credits == {"x-credits-reserved": f"{HELD.normalize()}"}
    assert await accounts.spent() == Decimal("0.21")


async def test_nothing_is_held_back(metered: Metered) -> None:
    """Each piece of a stream is with the server when the application's `send` returns."""
    answer, seen = Answer(), []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def watched(message: Message) -> None:
            await send(message)
            seen.append(len(answer.messages))

        await streaming(chunk("a"), chunk("b"), DONE)(scope, receive, watched)

    await call(metered(app), answer=answer)
    assert seen == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64])
async def test_events_may_be_cut_anywhere(metered: Metered, accounts: Accounts, step: int) -> None:
    """However the stream is cut, with CRLF, comments and characters of several bytes, the charge is the same."""
    body = b": ping\r\n\r\n" + (chunk("größer €") + usage_chunk(10, 20) + DONE).replace(b"\n", b"\r\n")
    await call(metered(streaming(*[body[i : i + step] for i in range(0, len(body), step)])))
    assert await accounts.spent() == Decimal("0.21")


async def test_without_usage_prompt_and_output_are_counted(metered: Metered, accounts: Accounts) -> None:
    """A stream that reports nothing is charged its prompt and what it delivered, four bytes a token."""
    await call(metered(streaming(chunk("x" * 10), chunk("y" * 10), DONE)))
    assert await accounts.spent() == PROMPT + 5 * Decimal("0.01")


async def test_the_flag_says_that_it_was_counted(metered: Metered, accounts: Accounts) -> None:
    """The journal entry of a counted charge says so, and of an interrupted one too."""
    await call(metered(streaming(chunk("x" * 10), end=False)))
    flags = [json.loads(entry.cause)["flags"] for entry in accounts.journal() if entry.operation == "settle"]
    assert flags == [["interrupted", "usage_counted"]]


@pytest.mark.parametrize("garbage", ['"lots"', '{"prompt_tokens": -1, "completion_tokens": 1.5}', "[]", "1e99"])
async def test_garbage_usage_is_counted_instead(metered: Metered, accounts: Accounts, garbage: str) -> None:
    """A stream that promises usage and has garbage there is charged by what was counted."""
    broken = b'data: {"choices": [], "usage": ' + garbage.encode() + b"}\n\n"
    await call(metered(streaming(chunk("x" * 20), broken, DONE)))
    assert await accounts.spent() == PROMPT + 5 * Decimal("0.01")


async def test_an_application_that_returns_without_an_end(metered: Metered, accounts: Accounts) -> None:
    """Returning without a last body message is an interrupted answer: what passed is charged."""
    await call(metered(streaming(chunk("x" * 20), end=False)))
    assert await accounts.spent() == PROMPT + 5 * Decimal("0.01")


async def test_an_application_that_raises_in_the_middle(metered: Metered, accounts: Accounts) -> None:
    """The exception goes on, and what passed is charged."""
    with pytest.raises(ZeroDivisionError):
        await call(metered(streaming(chunk("x" * 20), error=ZeroDivisionError())))
    assert await accounts.spent() == PROMPT + 5 * Decimal("0.01")


@pytest.mark.parametrize("lost", [0, 1, 2, 3, 4, 5])
async def test_a_server_that_lost_its_client(metered: Metered, accounts: Accounts, lost: int) -> None:
    """OSError from `send`, at any message, interrupts the answer: what the application had produced is charged."""
    pieces = [chunk("x" * 20), chunk("y" * 20), usage_chunk(10, 20), DONE]
    count = iter(range(100))

    def fail(message: Message) -> None:
        if next(count) >= lost:
            raise OSError("the client has gone")

    with pytest.raises(OSError, match="has gone"):
        await call(metered(streaming(*pieces)), on_send=fail)
    expected = [PROMPT, PROMPT + Decimal("0.05"), PROMPT + Decimal("0.10"), *[Decimal("0.21")] * 3]
    assert await accounts.spent() == expected[lost]


async def test_cancellation_is_charged_once(metered: Metered, accounts: Accounts) -> None:
    """A cancelled request is charged what passed, though it is cancelled again while that happens."""
    started = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def watched(message: Message) -> None:
            await send(message)
            if message.get("body"):
                started.set()
                await asyncio.Event().wait()

        await streaming(chunk("x" * 20), DONE)(scope, receive, watched)

    task = asyncio.create_task(call(metered(app)))  # type: ignore[arg-type]
    await started.wait()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await accounts.settled() == PROMPT + 5 * Decimal("0.01")


async def test_background_tasks_run_after_the_charge_began(metered: Metered, accounts: Accounts) -> None:
    """The end of an answer is its last body message: background tasks after it hold nothing up."""
    held = []

    async def background() -> None:
        await asyncio.sleep(0.01)
        held.append(await accounts.held())

    async def pieces():  # type: ignore[no-untyped-def]
        yield chunk("a")
        yield usage_chunk(10, 20)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        response = StreamingResponse(pieces(), media_type="text/event-stream", background=BackgroundTask(background))
        await response(scope, receive, send)

    await call(metered(app))
    assert held == [0]
    assert await accounts.spent() == Decimal("0.21")


@pytest.mark.parametrize("content_type", ["text/plain", "application/json", ""])
async def test_a_stream_under_a_wrong_name(metered: Metered, accounts: Accounts, content_type: str) -> None:
    """Events are known by their first bytes where the content type says something else; they are not held back."""
    pieces = [chunk("x" * 20), usage_chunk(10, 20), DONE]
    answer = await call(metered(sending(*pieces, content_type=content_type)))
    assert "x-credits-reserved" in answer.headers
    assert await accounts.spent() == Decimal("0.21")


async def test_plain_text_is_counted(metered: Metered, accounts: Accounts) -> None:
    """An answer that is neither JSON nor a stream is charged by its bytes."""
    await call(metered(sending(b"x" * 20, content_type="text/plain")))
    assert await accounts.spent() == PROMPT + 5 * Decimal("0.01")


async def test_a_last_event_without_empty_line(metered: Metered, accounts: Accounts) -> None:
    """Usage in a last event that nothing follows is read."""
    await call(metered(streaming(chunk("a"), usage_chunk(10, 20).strip())))
    assert await accounts.spent() == Decimal("0.21")


async def test_a_file_that_the_server_sends(metered: Metered, accounts: Accounts) -> None:
    """http.response.pathsend is the end of an answer that nobody here can read: the prompt is charged."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.pathsend", "path": "/answer.txt"})

    answer = await call(metered(app))
    assert [message["type"] for message in answer.messages] == ["http.response.start", "http.response.pathsend"]
    assert await accounts.spent() == PROMPT
    assert json.loads(accounts.journal()[-1].cause)["flags"] == ["usage_counted"]


async def test_a_compressed_stream(metered: Metered, accounts: Accounts) -> None:
    """A stream that is compressed inside of the metering is read all the same."""
    body = gzip.compress(chunk("hello") + usage_chunk(10, 20) + DONE)
    pieces = [body[i : i + 11] for i in range(0, len(body), 11)]
    answer = await call(metered(streaming(*pieces, headers=[(b"content-encoding", b"gzip")])))
    assert answer.body == body
    assert await accounts.spent() == Decimal("0.21")


@pytest.mark.parametrize("prompt", [0, 10])
async def test_usage_of_zero_stays_zero(metered: Metered, accounts: Accounts, prompt: int) -> None:
    """A stream that says that it used nothing is charged nothing, whatever it delivered; nothing is counted instead."""
    await call(metered(streaming(chunk("x" * 20), usage_chunk(prompt, 0), DONE)))
    assert await accounts.spent() == prompt * Decimal("0.001")
    assert "flags" not in json.loads(accounts.journal()[-1].cause)


async def test_a_stream_without_done(metered: Metered, accounts: Accounts) -> None:
    """A stream whose [DONE] is missing is charged what it reported, or as counted, and is not interrupted."""
    await call(metered(streaming(chunk("x" * 20), usage_chunk(10, 20))))
    assert await accounts.spent() == Decimal("0.21")
    await call(metered(streaming(chunk("x" * 20))))
    assert await accounts.spent() == Decimal("0.21") + PROMPT + Decimal("0.05")
    assert json.loads(accounts.journal()[-1].cause)["flags"] == ["usage_counted"]


@pytest.mark.parametrize("usage", [[], [usage_chunk(10, 20)]])
async def test_an_error_in_the_middle_of_a_stream(metered: Metered, accounts: Accounts, usage: list[bytes]) -> None:
    """What was delivered before an error inside a stream is charged, by the report where there was one."""
    error = event({"error": {"message": "overloaded"}})
    await call(metered(streaming(chunk("x" * 20), *usage, error, DONE)))
    assert await accounts.spent() == (Decimal("0.21") if usage else PROMPT + Decimal("0.05"))


async def test_an_error_inside_a_stream(metered: Metered, accounts: Accounts) -> None:
    """A stream whose first event is an error costs nothing."""
    await call(metered(streaming(event({"error": {"message": "overloaded"}}))))
    assert await accounts.spent() == 0


async def test_a_plain_answer_whose_client_left(metered: Metered, accounts: Accounts) -> None:
    """A plain endpoint runs to its end though its client has gone, and is charged."""
    body = json.dumps(completion(10, 20)).encode()

    def gone(message: Message) -> None:
        raise OSError("the client has gone")

    with pytest.raises(OSError, match="has gone"):
        await call(metered(sending(body)), on_send=gone)
    assert await accounts.spent() == Decimal("0.21")


async def test_json_that_was_cut(metered: Metered, accounts: Accounts) -> None:
    """JSON that ends early is charged by its bytes, and passes as far as it came."""
    answer = await call(metered(sending(b'{"choices": [1, 2, 3', end=False)))
    assert answer.body == b'{"choices": [1, 2, 3'
    assert await accounts.spent() == PROMPT + 5 * Decimal("0.01")


async def test_json_whose_application_failed(metered: Metered, accounts: Accounts) -> None:
    """JSON that was held back when the application raised costs nothing: its client gets an error."""
    answer = Answer()
    with pytest.raises(ZeroDivisionError):
        await call(metered(sending(b'{"choices": [1, 2, 3', error=ZeroDivisionError())), answer=answer)
    assert answer.messages == []
    assert await accounts.spent() == 0


async def test_json_whose_client_left_is_not_free(metered: Metered, accounts: Accounts) -> None:
    """An application that stops because its client left is charged what it produced, though none of it passed."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": b"x" * 20, "more_body": True})
        assert (await receive())["type"] == "http.disconnect"
        raise ConnectionError("the client has gone")

    with pytest.raises(ConnectionError):
        await call(metered(app))
    assert await accounts.spent() == PROMPT + 5 * Decimal("0.01")
