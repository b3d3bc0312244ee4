"""What every link makes of replies: results, errors, one more try."""

from typing import Any

import hiredis
import pytest

from ducto_redis.engine.link import ConnectionLostError, Link, TimedOutError
from ducto_redis.engine.operation import Operation
from ducto_redis.engine.replies import MoreIsDue
from ducto_redis.errors import CreditError, StoreError, StoreUnavailableError
from tests.engine.echo import echo


class Scripted(Link):
    """A link that exchanges nothing, and answers from a list."""

    def __init__(self, *answers: Any) -> None:
        super().__init__()
        self.answers = list(answers)
        self.sent: list[bytes] = []

    async def exchange(self, command: bytes, deadline: float) -> Any:
        self.sent.append(command)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception) and not isinstance(answer, hiredis.ReplyError):
            raise answer
        return answer

    async def close(self) -> None:
        pass


def patient(value: int) -> Operation[int]:
    """An operation that understands `again`."""
    operation = echo(value)

    def read(_: Operation[int], reply: bytes) -> int:
        if reply == b"again":
            raise MoreIsDue
        return int(reply)

    operation.read = read
    return operation


async def test_result() -> None:
    """The reply of the script is the operation's result."""
    assert await Scripted(b"5").run(echo(5)) == 5


async def test_unknown_script_is_sent_whole() -> None:
    """A server that does not know the script gets its text."""
    link = Scripted(hiredis.ReplyError("NOSCRIPT No matching script."), b"5")
    assert await link.run(echo(5)) == 5
    assert [command.split(b"\r\n")[2] for command in link.sent] == [b"EVALSHA", b"EVAL"]


async def test_one_more_try() -> None:
    """A lost connection is tried once more, the same command; a second loss is the caller's."""
    link = Scripted(ConnectionLostError("cut"), b"5")
    assert await link.run(echo(5)) == 5
    assert link.sent[0] == link.sent[1]
    link = Scripted(ConnectionLostError("cut"), ConnectionLostError("cut again"), b"5")
    with pytest.raises(StoreUnavailableError, match="cut again") as unavailable:
        await link.run(echo(5))
    assert unavailable.value.operation_key == "key 5"


async def test_no_more_time() -> None:
    """An operation that took too long is not tried again, and its error carries its key."""
    link = Scripted(TimedOutError(), b"5")
    with pytest.raises(StoreUnavailableError) as unavailable:
        await link.run(echo(5))
    assert (unavailable.value.operation_key, len(link.sent)) == ("key 5", 1)
    link = Scripted(ConnectionLostError("cut"), b"5")
    with pytest.raises(StoreUnavailableError):
        await link.run(echo(5), timeout_seconds=0)
    assert len(link.sent) == 1


class ClosedMeanwhile(Scripted):
    """A link that somebody closes while the first command is under way."""

    async def exchange(self, command: bytes, deadline: float) -> Any:
        self.times_closed += 1
        return await super().exchange(command, deadline)


@pytest.mark.parametrize("answer", [ConnectionLostError("the link was closed"), hiredis.ReplyError("NOSCRIPT")])
async def test_closed_link_tries_nothing_again(answer: Exception) -> None:
    """Closing a link ends what is under way; sending again would connect it anew."""
    link = ClosedMeanwhile(answer, b"5")
    with pytest.raises(StoreUnavailableError, match="was closed"):
        await link.run(echo(5))
    assert len(link.sent) == 1


async def test_asked_again_until_nothing_more_is_due() -> None:
    """An operation is sent again for as long as its answer is that more is due, and no longer than it has time."""
    link = Scripted(b"again", hiredis.ReplyError("NOSCRIPT"), b"again", b"5")
    assert await link.run(patient(5)) == 5
    assert [command.split(b"\r\n")[2] for command in link.sent] == [b"EVALSHA", b"EVALSHA", b"EVAL", b"EVALSHA"]
    with pytest.raises(StoreUnavailableError, match="in time"):
        await Scripted(b"again", b"5").run(patient(5), timeout_seconds=0)


@pytest.mark.parametrize(
    ("reply", "kind", "text"),
    [
        ("LOADING Redis is loading the dataset in memory", StoreUnavailableError, "cannot serve now"),
        ("BUSY Redis is busy running a script", StoreUnavailableError, "cannot serve now"),
        ("MASTERDOWN Link with MASTER is down", StoreUnavailableError, "cannot serve now"),
        ("READONLY You can't write against a read only replica.", StoreUnavailableError, "cannot serve now"),
        ("OOM command not allowed when used memory > 'maxmemory'.", StoreError, "memory is full"),
        ("NOPERM this user has no permissions", StoreError, "credentials or their rights"),
        ("NOAUTH Authentication required.", StoreError, "credentials or their rights"),
        ("ERR user_script:3: something", StoreError, "echo failed in the engine"),
        ("WRONGTYPE Operation against a key", StoreError, "echo failed in the engine"),
    ],
)
async def test_error_replies(reply: str, kind: type[CreditError], text: str) -> None:
    """Each kind of error reply is an error of its own, and tells what happened."""
    with pytest.raises(kind, match=text) as refused:
        await Scripted(hiredis.ReplyError(reply)).run(echo(5))
    assert type(refused.value) is kind
