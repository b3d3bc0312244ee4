"""The Idempotency-Key of a request: the application runs once for it, and is charged once.

What keeps two from running at the same time is the lease: its id is made of the key, and opening it is one atomic step.
Every run has a lease of its own, numbered by its attempt. A run that cost nothing was released, one whose process was
killed expires: then the next attempt may run.
"""

import asyncio
import logging
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from hashlib import blake2b
from time import monotonic
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from starlette.types import Message, Receive, Send

from ducto_redis.errors import AlreadyChargedError, CreditError, IdempotencyConflictError, LeaseClosedError
from ducto_redis.manager import AsyncCreditManager
from ducto_redis.middleware.api_request import ApiRequest
from ducto_redis.middleware.client import Client
from ducto_redis.middleware.error_responses import BadRequestError
from ducto_redis.middleware.request_meter import RequestMeter
from ducto_redis.middleware.stored_answers import Answer, RecordedClient, Recording, StoredAnswers
from ducto_redis.payer import Payer
from ducto_redis.results import LeaseStatus

T = TypeVar("T")

logger = logging.getLogger("ducto_redis.middleware")

LONGEST_KEY = 255

_HEADER = b"idempotency-key"
_REMEMBERED_SECONDS = 25 * 3600
"""Longer than closed leases are remembered: as long as one attempt of a key is known, so is the latest."""
_BOUNDARY = re.compile(rb'(?i)^multipart/.*;\s*boundary=(?:"([^"]+)"|([^\s;"]+))')
_FIRST_POLL_SECONDS = 0.02
_LONGEST_POLL_SECONDS = 0.5
_TRIES = 100


class Outcome(Struct, frozen=True, array_like=True):
    """The record of a key, kept beside the account.

    Attributes:
        attempt: the latest one.
        request: what tells requests apart; empty as long as the attempt has not been answered.
    """

    attempt: int
    request: bytes = b""


class Idempotency:
    """Tells repeats of requests by their Idempotency-Key.

    Args:
        manager: where accounts are charged.
        wait_seconds: how long a repeat waits for the first while that runs; 0: it does not.
        stored_answers: how answers are kept to be given again; None: they are not.
    """

    def __init__(
        self, manager: AsyncCreditManager, *, wait_seconds: float = 0, stored_answers: StoredAnswers | None = None
    ) -> None:
        self.manager = manager
        self.wait_seconds = wait_seconds
        self.stored_answers = stored_answers

    def keyed(self, request: ApiRequest, payer: Payer) -> "KeyedRequest | None":
        """Return the request with its key; None for one that carries none. Raises BadRequestError."""
        keys = [value for name, value in request.headers.items if name == _HEADER]
        if not keys:
            return None
        key = keys[0].decode("latin-1").strip()
        if len(keys) > 1 or not 0 < len(key) <= LONGEST_KEY or not key.isascii() or not key.isprintable():
            raise BadRequestError(
                f"a request has one Idempotency-Key, of 1 to {LONGEST_KEY} printable ASCII characters",
                code="invalid_idempotency_key",
            )
        return KeyedRequest(self, request, payer, key)


class KeyedRequest:
    """A request that carries an Idempotency-Key."""

    def __init__(self, idempotency: Idempotency, request: ApiRequest, payer: Payer, key: str) -> None:
        self._manager = idempotency.manager
        self._wait_seconds = idempotency.wait_seconds
        self._stored_answers = idempotency.stored_answers
        self._account = payer.account
        self._key = key
        # Members of a team have keys of their own: nobody gets another's answer.
        whose = [key.encode(), (payer.member or "").encode()]
        self._name = urlsafe_b64encode(_digest(whose, 18)).decode()
        path = request.sent_path.encode(errors="surrogatepass")
        about = [request.method.encode(), path, request.query, _without_boundary(request)]
        self._request = _digest([payer.account.encode(), *whose, *about], 18)
        self._metadata = {
            "idempotency_key": key,
            "request": urlsafe_b64encode(self._request).decode(),
            "run": secrets.token_urlsafe(9),  # its own lease is told from that of another run by it
        }
        self._attempt = 1
        self._kept = b""
        self._recording: Recording | None = None

    async def admit(
        self, meter: RequestMeter, reserve: Callable[[], Awaitable[object]], receive: Receive, send: Send
    ) -> bool:
        """Open the meter of the request, if it is to run; otherwise wait, give the stored answer again, or refuse.

        Args:
            meter: of the request.
            reserve: opens it; called once for each attempt that may be free.
            receive, send: the server's; the body of the request has been read.

        Returns:
            Whether it is to run; otherwise it is done with: it got the stored answer, or its client left.

        Raises:
            IdempotencyConflictError: if the key was used for another request, or the first one is still running.
            AlreadyChargedError: if the first one was charged, and there is no stored answer.
            CreditError, HTTPException: what `reserve` raises.
        """
        give_up_at = monotonic() + self._wait_seconds
        self._note(await self._manager.get_value(self._account, self._outcome_name))
        for _ in range(_TRIES):
            meter.share_lease(self._lease_id, self._metadata)
            try:
                await reserve()
            except IdempotencyConflictError:
                pass  # somebody was here before
            except LeaseClosedError as closed:
                if closed.lease_id != self._lease_id:
                    raise  # the one that it was to be inside of
            else:
                return True
            client = _WaitingClient(receive)
            try:
                earlier = await self._ended(client, give_up_at)
            finally:
                await client.stop()
            if client.left:
                return False
            if earlier is None:
                continue
            if earlier.state not in ("released", "expired"):
                await (await self._stored_answer(earlier)).send(send)
                return False
            await self._next_attempt()
        raise IdempotencyConflictError(self._account, self._key, running=True)

    def client(self, receive: Receive, send: Send, body: bytes, drain_seconds: float) -> Client:
        """Return the request's client; where answers are stored, its answer is taken down."""
        if self._stored_answers is None:
            return Client(receive, send, body, drain_seconds)
        self._recording = Recording(self._stored_answers.max_bytes)
        return RecordedClient(self._recording, receive, send, body, drain_seconds)

    async def keep_and_charge(self, charging: Awaitable[T], still_held: Sequence[Message]) -> T:
        """Keep what repeats have to know, and the answer where it can be given again; charge at the same time.

        Whoever finds the lease settled finds what is kept: it is sent before, on the same connection.

        Args:
            charging: settles the lease.
            still_held: what of the answer is sent once it is charged.
        """
        keeping = [self._keep(None)]
        if self._recording is not None:
            for message in still_held:
                self._recording.take(message)
            if (answer := self._recording.answer) is not None:
                keeping.insert(0, self._keep(answer))
        results: list[Any] = await asyncio.gather(*keeping, charging)
        charged: T = results[-1]
        return charged

    async def _keep(self, answer: Answer | None) -> None:
        """Keep an answer, or, with None, that there was one."""
        lease_id = self._lease_id
        try:
            if answer is not None:
                await self._store(answer)
            elif not await self._replace(Outcome(self._attempt, self._request)):
                logger.info("lease %s is charged late: a later attempt of its request has begun", lease_id)
        except CreditError as error:
            logger.warning("a repeat of lease %s will not get its answer: %s", lease_id, error)
        except Exception:
            logger.exception("a repeat of lease %s will not get its answer", lease_id)

    @property
    def _lease_id(self) -> str:
        return f"idempotency/{self._name}/{self._attempt}"

    @property
    def _outcome_name(self) -> str:
        return f"ducto/idempotency/{self._name}"

    @property
    def _answer_name(self) -> str:
        return f"ducto/answer/{self._name}/{self._attempt}"

    @property
    def _place(self) -> bytes:
        namespace = self._manager.store.namespace.name.encode()
        return _digest([namespace, self._account.encode(), self._answer_name.encode(), self._request], 32)

    def _note(self, kept: bytes | None) -> Outcome | None:
        """Take in what is kept about the key."""
        self._kept = kept or b""
        outcome = _decoder.decode(kept) if kept else None
        if outcome is not None and outcome.attempt > self._attempt:
            self._attempt = outcome.attempt
        return outcome

    async def _ended(self, client: "_WaitingClient", give_up_at: float) -> LeaseStatus | None:
        """Wait until the run that has this attempt's lease ends, or its client leaves.

        Returns:
            The lease; an open one has been answered, and its charge is on the way, or its work goes on. None where
            there is none, or the client left.
        """
        poll_seconds = _FIRST_POLL_SECONDS
        while True:
            attempt = self._attempt
            # In this order: what is kept about a run is there before its lease is closed.
            lease = await self._manager.find_lease(self._account, self._lease_id)
            outcome = self._note(await self._manager.get_value(self._account, self._outcome_name))
            if lease is None or self._attempt != attempt:
                return None
            answered = outcome.request if outcome is not None and outcome.attempt == attempt else b""
            if answered and lease.state in ("open", "settled"):
                self._check_same(answered == self._request)
                return lease
            if lease.state != "open":
                return lease
            self._check_same(_request_of(lease) == self._metadata["request"])
            left_seconds = give_up_at - monotonic()
            if left_seconds <= 0:
                raise IdempotencyConflictError(self._account, self._key, running=True)
            await client.wait(min(poll_seconds, left_seconds))
            if client.left:
                return None
            poll_seconds = min(poll_seconds * 1.5, _LONGEST_POLL_SECONDS)

    def _check_same(self, same: bool) -> None:
        if not same:
            raise IdempotencyConflictError(self._account, self._key)

    async def _next_attempt(self) -> None:
        """Go on to the next attempt, or to a later one that has begun. Whoever comes later finds it."""
        following = Outcome(self._attempt + 1)
        if await self._replace(following):
            self._attempt = following.attempt

    async def _replace(self, outcome: Outcome) -> bool:
        """Keep an outcome, unless another one has come in between. Returns whether it is kept."""
        new = _encoder.encode(outcome)
        kept = await self._manager.put_value(
            self._account, self._outcome_name, new, ttl=_REMEMBERED_SECONDS, if_equals=self._kept
        )
        self._note(kept)
        return kept == new

    async def _stored_answer(self, earlier: LeaseStatus) -> Answer:
        stored = self._stored_answers
        kept = None if stored is None else await self._manager.get_value(self._account, self._answer_name)
        answer = None if stored is None or kept is None else stored.open(kept, self._place)
        if answer is None:
            raise AlreadyChargedError(self._account, self._key, earlier.transaction_id)
        return answer

    async def _store(self, answer: Answer) -> None:
        stored = self._stored_answers
        assert stored is not None
        sealed = stored.seal(answer, self._place)
        await self._manager.put_value(self._account, self._answer_name, sealed, ttl=stored.ttl_seconds)


class _WaitingClient:
    """A client that waits, of whom it is to be known whether it has left."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._leaving: asyncio.Task[None] | None = None

    @property
    def left(self) -> bool:
        return self._leaving is not None and self._leaving.done() and not self._leaving.cancelled()

    async def wait(self, seconds: float) -> None:
        """Wait so long, or until the client leaves."""
        if self._leaving is None:
            self._leaving = asyncio.get_running_loop().create_task(self._leave())
        await asyncio.wait([self._leaving], timeout=seconds)

    async def stop(self) -> None:
        """Leave `receive` to the application."""
        if self._leaving is not None and not self._leaving.done():
            self._leaving.cancel()
            await asyncio.wait([self._leaving])

    async def _leave(self) -> None:
        with suppress(Exception):
            if (await self._receive())["type"] == "http.disconnect":
                return
        await asyncio.Event().wait()  # a server that gives anything else can't say when its client leaves


def _digest(parts: Sequence[bytes], size: int) -> bytes:
    """Return a digest of parts that differs wherever one of them does."""
    digest = blake2b(digest_size=size)
    for part in parts:
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.digest()


def _without_boundary(request: ApiRequest) -> bytes:
    """Return the body without the boundary between its parts, which clients make anew each time that they send it."""
    found = _BOUNDARY.search(request.headers.get(b"content-type"))
    return request.body if found is None else request.body.replace(b"--" + (found[1] or found[2]), b"--")


def _request_of(lease: LeaseStatus) -> str:
    try:
        return msgspec.json.decode(lease.metadata, type=_Metadata).request
    except msgspec.MsgspecError:
        return ""  # a lease that somebody else gave this id


class _Metadata(Struct):
    request: str


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Outcome)
