"""The comparison of the ledger's accounts with those of the engine."""

from collections.abc import Mapping
from typing import Any, Protocol

from redis.exceptions import ResponseError

from ducto_redis.engine.ids import RESERVED_ACCOUNT
from ducto_redis.engine.keys import Namespace
from ducto_redis.engine.state import AccountState


class EngineStore(Protocol):
    """The part of a store that the comparison needs."""

    @property
    def namespace(self) -> Namespace: ...

    def redis(self) -> Any: ...


class EngineCheck:
    """A comparison of accounts with the engine.

    Attributes:
        compared: the number of accounts that were at the same seq.
        behind: the number of accounts with newer changes in the engine.
    """

    def __init__(self, store: EngineStore) -> None:
        self._namespace = store.namespace
        self._client = store.redis()
        self.compared = 0
        self.behind = 0

    @property
    def namespace(self) -> str:
        """The namespace of the accounts."""
        return self._namespace.name

    def compare(self, ledger: Mapping[str, AccountState]) -> dict[str, str]:
        """Return the differences by account."""
        pipeline = self._client.pipeline(transaction=False)
        for account in ledger:
            reserved = account == RESERVED_ACCOUNT
            keys = (self._namespace.reserved if reserved else self._namespace.account(account)).keys
            pipeline.hgetall(keys[0])
            pipeline.hgetall(keys[1])
            pipeline.hget(keys[0], "seq")  # if unchanged, the two reads before are of one state
        replies = pipeline.execute(raise_on_error=False)
        differences = {}
        for index, (account, state) in enumerate(ledger.items()):
            fields, leases, seq = replies[3 * index : 3 * index + 3]
            try:
                live = AccountState(_text(fields), _text(leases))
                stood_still = live.fields.get("seq") == (seq.decode() if seq else None)
                difference = self._compare(live, state, stood_still)
            except (ResponseError, ValueError) as error:
                difference = f"the engine's account cannot be read: {error}"
            if difference:
                differences[account] = difference
        return differences

    def _compare(self, live: AccountState, ledger: AccountState, stood_still: bool) -> str | None:
        if not live.fields and ledger.seq:
            return f"the engine does not know the account, but the ledger has {ledger.seq} changes"
        place = (int(live.fields.get("epoch", "0")), live.seq)
        ledger_place = (int(ledger.fields.get("epoch", "0")), ledger.seq)
        if place < ledger_place:
            return f"the engine is at epoch {place[0]}, seq {place[1]}, behind the ledger at {ledger_place}"
        if place > ledger_place or not stood_still:
            self.behind += 1
            return None
        self.compared += 1
        for name, engine, stored in (
            ("the balance", live.balance, ledger.balance),
            ("the held credits", live.held, ledger.held),
            ("the account", live.fields, ledger.fields),
            ("the leases", live.leases, ledger.leases),
        ):
            if engine != stored:
                details = f": {engine} and {stored}" if isinstance(engine, int) else ""
                return f"engine and ledger differ in {name}{details}"
        return None


def _text(reply: Mapping[bytes, bytes] | Exception) -> dict[str, str]:
    if isinstance(reply, Exception):
        raise reply
    return {name.decode(): value.decode() for name, value in reply.items()}
