"""New accounts: opened by their first change with the bonus and the plan of the document, once."""

import asyncio

import pytest

from ducto_redis.errors import InsufficientCreditsError
from ducto_redis.testing.caller import Caller, Document, Plan
from ducto_redis.testing.calls import ACCOUNT, KNOWN, deduct, entry_of, key, micro
from ducto_redis.testing.inspection import read_journal
from ducto_redis.testing.opening import ConformanceTests, OpenStore


def document(**others: object) -> Document:
    """Return a document that opens accounts with a bonus and a plan."""
    return Document({"free": Plan(100), "pro": Plan(500)}, **{"default": "free", "bonus": 50, **others})  # type: ignore[arg-type]


@pytest.mark.asyncio
class NewAccountConformance(ConformanceTests):
    """The opening."""

    async def test_first_change_opens(self, open_store: OpenStore) -> None:
        """The first change of an account gives it its bonus and its plan, and is itself paid from them."""
        caller = Caller(await open_store(), document())
        charged = await caller.deduct(120)
        assert (micro(charged.allowance_consumed), micro(charged.balance_after)) == (100, 30)
        described = await caller.describe()
        assert (described.plan, micro(described.balance.balance), described.balance.seq) == ("free", 30, 2)
        assert (await entry_of(caller.store, charged)).seq == 2

    async def test_entry_of_the_opening(self, open_store: OpenStore) -> None:
        """The opening has an entry of its own, before that of the change."""
        store = await open_store.journalled()
        caller = Caller(store, document())
        await caller.add(5)
        opening, added = read_journal(store)
        assert (opening.operation, opening.operation_key, opening.seq) == ("open_account", "open", 1)
        assert (opening.amount, opening.balance_change) == (50, 50)
        assert (added.operation, added.seq) == ("add_credits", 2)

    @pytest.mark.parametrize("first", ["add", "deduct", "reserve", "adjust", "set_cap", "set_plan", "freeze"])
    async def test_whatever_comes_first(self, open_store: OpenStore, first: str) -> None:
        """Every operation that can be the first opens the account, with the bonus once."""
        caller = Caller(await open_store(), document())
        match first:
            case "add":
                await caller.add(10)
            case "deduct":
                await caller.deduct(10, skip_allowance=True)
            case "reserve":
                await caller.reserve("a lease", 10)
            case "adjust":
                await caller.ask(
                    lambda c: caller.store.adjust_credits(
                        ACCOUNT, 10, key("corrected"), force=False, conditions=c, cause=b""
                    )
                )
            case "set_cap":
                await caller.set_cap("day", 1000)
            case "freeze":
                await caller.ask(lambda c: caller.store.freeze(ACCOUNT, "why", key("frozen"), conditions=c, cause=b""))
            case _:
                await caller.set_plan("pro")
        expected = {"add": 60, "deduct": 40, "adjust": 60}.get(first, 50)
        described = await caller.describe()
        assert micro(described.balance.balance) == expected
        assert described.plan == ("pro" if first == "set_plan" else "free")
        await caller.add(1, "another change")
        assert (await caller.numbers())[0] == expected + 1

    async def test_reads_show_what_it_would_be(self, open_store: OpenStore) -> None:
        """A look at a new account shows its beginning, and nothing begins."""
        caller = Caller(await open_store(), document())
        balance = await caller.ask(lambda c: caller.store.get_balance(ACCOUNT, conditions=c))
        assert (micro(balance.balance), micro(balance.allowance), balance.seq) == (50, 100, 0)
        described = await caller.describe()
        assert (described.plan, micro(described.balance.balance), described.balance.seq) == ("free", 50, 0)

    async def test_refused_first_change_opens_nothing(self, open_store: OpenStore) -> None:
        """A first change that is refused leaves the account as new as it was."""
        caller = Caller(await open_store(), document())
        with pytest.raises(InsufficientCreditsError):
            await caller.deduct(151)
        balance = await caller.ask(lambda c: caller.store.get_balance(ACCOUNT, conditions=c))
        assert (micro(balance.balance), balance.seq) == (50, 0)
        await caller.deduct(150)

    async def test_without_a_plan(self, open_store: OpenStore) -> None:
        """A document with a bonus alone gives the bonus alone, and asks nothing for it."""
        caller = Caller(await open_store(), Document(bonus=50))
        await caller.deduct(30)
        assert (caller.asked, await caller.numbers()) == ([], (20, 0, 20))

    async def test_question_of_a_new_account(self, open_store: OpenStore) -> None:
        """The plan that a new account gets is asked about as one that is to be assigned now."""
        caller = Caller(await open_store(), document())
        await caller.deduct(30)
        (asked,) = caller.asked
        assert (asked.plan, asked.assigned_ms) == ("free", 0)

    async def test_accounts_that_were_there(self, open_store: OpenStore) -> None:
        """An account that was there before the document gets neither bonus nor plan."""
        store = await open_store()
        older = Caller(store)
        await older.add(10)
        caller = Caller(store, document())
        await caller.deduct(5)
        described = await caller.describe()
        assert (described.plan, micro(described.balance.balance)) == ("", 5)

    async def test_many_first_requests(self, open_store: OpenStore) -> None:
        """First requests that come together open the account once."""
        store = await open_store()
        raw = store.inner  # type: ignore[attr-defined]
        callers = [Caller(raw, document()) for _ in range(20)]
        await asyncio.gather(*(caller.deduct(5, f"{number}") for number, caller in enumerate(callers)))
        described = await callers[0].describe()
        assert (described.balance.seq, micro(described.balance.balance)) == (21, 50)
        assert micro(described.allowance.used) == 100

    async def test_who_knows_no_document(self, open_store: OpenStore) -> None:
        """An account begins with nothing under a document that opens none."""
        store = await open_store()
        with pytest.raises(InsufficientCreditsError):
            await deduct(store, 1, conditions=KNOWN)
