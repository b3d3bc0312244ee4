"""Credits in and out: add_credits, deduct, get_balance, and what makes them safe to repeat."""

import pytest

from ducto_redis.engine.operation import PLAIN, NewGrant, Price
from ducto_redis.errors import (
    IdempotencyConflictError,
    InsufficientCreditsError,
    InvalidAmountError,
    InvalidIdError,
    JournalFullError,
    StalePricing,
)
from ducto_redis.money import MAX_MICRO
from ducto_redis.testing.calls import (
    ACCOUNT,
    DAY_MS,
    KNOWN,
    NEVER,
    add,
    deduct,
    entry_of,
    extend,
    key,
    micro,
    numbers,
    numbers_of,
    release,
    renew,
    reserve,
    settle,
    terms,
)
from ducto_redis.testing.opening import ConformanceTests, OpenStore
from ducto_redis.testing.operations import OPERATIONS

STRANGE_ACCOUNTS = ["{a}", "}{", "a:b", "1:a", " ", "ü", "用户", "a'b\"c\\", "*", "😀", "x" * 256, "lease/1", "%s"]


@pytest.mark.asyncio
class AccountConformance(ConformanceTests):
    """Adding, deducting and looking."""

    async def test_unknown_account_has_nothing(self, open_store: OpenStore) -> None:
        """An account that nothing ever happened to has zero of everything, and asking does not create it."""
        balance = await (await open_store()).get_balance(ACCOUNT, conditions=KNOWN)
        assert (numbers(balance), balance.seq, balance.account) == ((0, 0, 0), 0, ACCOUNT)

    async def test_add_credits(self, open_store: OpenStore) -> None:
        """Credits that come in are in the balance, the answer and the journal."""
        store = await open_store()
        added = await add(store, 5, "one", cause=b'{"type":"bonus"}')
        assert (micro(added.amount), micro(added.balance_after), micro(added.available)) == (5, 5, 5)
        assert not added.replayed
        entry = await entry_of(store, added)
        assert (entry.operation, entry.account, entry.operation_key) == ("add_credits", ACCOUNT, "key/one")
        assert (entry.amount, entry.balance_change, entry.shortfall, entry.version) == (5, 5, 0, 0)
        assert (entry.epoch, entry.seq, entry.cause) == (1, 1, '{"type":"bonus"}')

    async def test_deduct(self, open_store: OpenStore) -> None:
        """A charge leaves the balance and is journalled with the version that it was priced under."""
        store = await open_store()
        await add(store, 10)
        charged = await deduct(store, Price(4, version=3, activation=7), "two", cause=b"{}")
        assert (micro(charged.amount), micro(charged.balance_after), micro(charged.available)) == (4, 6, 6)
        entry = await entry_of(store, charged)
        assert (entry.operation, entry.amount, entry.balance_change, entry.version) == ("deduct", 4, -4, 3)
        assert (await store.get_balance(ACCOUNT, conditions=KNOWN)).seq == 2

    async def test_deduct_is_exact_at_the_floor(self, open_store: OpenStore) -> None:
        """All that is available above the floor can be spent, and not one micro-credit more."""
        store = await open_store()
        await add(store, 10)
        with pytest.raises(InsufficientCreditsError) as refused:
            await deduct(store, 8, floor=3)
        assert (micro(refused.value.needed), micro(refused.value.available)) == (8, 10)
        assert (micro(refused.value.floor), micro(refused.value.held), refused.value.next_expiry) == (3, 0, None)
        await deduct(store, 7, floor=3)
        assert await numbers_of(store) == (3, 0, 3)

    async def test_deduct_respects_holds(self, open_store: OpenStore) -> None:
        """Credits that a lease holds cannot be spent by anything else."""
        store = await open_store()
        await add(store, 10)
        await reserve(store, "a lease", 6)
        with pytest.raises(InsufficientCreditsError) as refused:
            await deduct(store, 5)
        assert (micro(refused.value.available), micro(refused.value.held)) == (4, 6)
        assert refused.value.next_expiry is not None
        await deduct(store, 4)

    async def test_overdraft(self, open_store: OpenStore) -> None:
        """A floor below zero lets an account go down to it."""
        store = await open_store()
        await deduct(store, 30, floor=-30)
        assert await numbers_of(store) == (-30, 0, -30)
        with pytest.raises(InsufficientCreditsError):
            await deduct(store, 1, "another", floor=-30)
        await add(store, 31)
        await deduct(store, 1, "strict again")

    async def test_nothing_is_deducted_below_the_floor(self, open_store: OpenStore) -> None:
        """An account below its floor, because the floor was raised, admits nothing, not even what costs nothing."""
        store = await open_store()
        await deduct(store, 5, floor=-10)
        with pytest.raises(InsufficientCreditsError):
            await deduct(store, 0, "free")
        await deduct(store, 0, "free", floor=-5)

    async def test_replay(self, open_store: OpenStore) -> None:
        """The same key with the same request gives the first answer again, marked, whatever happened since."""
        store = await open_store()
        first_added = await add(store, 10, "one")
        first_charged = await deduct(store, 3, "two")
        await deduct(store, 7, "three")
        added, charged = await add(store, 10, "one"), await deduct(store, 3, "two")
        assert added.replayed
        assert charged.replayed
        assert (added.transaction_id, micro(added.balance_after)) == (first_added.transaction_id, 10)
        assert (charged.transaction_id, micro(charged.balance_after)) == (first_charged.transaction_id, 7)
        assert await numbers_of(store) == (0, 0, 0)

    async def test_replay_is_not_repriced(self, open_store: OpenStore) -> None:
        """A replay gives the first price, also where the repeated call was priced anew: the request is the same."""
        store = await open_store()
        await add(store, 10)
        await deduct(store, Price(3, 1, 1), "a charge")
        again = await deduct(store, Price(5, 2, 2), "a charge")
        assert (micro(again.amount), again.replayed) == (3, True)

    async def test_conflict(self, open_store: OpenStore) -> None:
        """The same key with another request is a conflict that names the caller's key."""
        store = await open_store()
        await add(store, 10, "one")
        with pytest.raises(IdempotencyConflictError) as conflict:
            await store.add_credits(
                ACCOUNT, NewGrant(11, "purchase"), key("one", "something else"), conditions=PLAIN, cause=b""
            )
        assert conflict.value.key == "one"
        with pytest.raises(IdempotencyConflictError):
            await deduct(store, 1, "one", fingerprint="something else")

    async def test_keys_belong_to_accounts(self, open_store: OpenStore) -> None:
        """The same key of another account is another key."""
        store = await open_store()
        await add(store, 1, "one", account="u1")
        assert not (await add(store, 1, "one", account="u2")).replayed

    async def test_refusals_are_not_remembered(self, open_store: OpenStore) -> None:
        """A key whose request was refused is free."""
        store = await open_store()
        with pytest.raises(InsufficientCreditsError):
            await deduct(store, 5, "one")
        await add(store, 5)
        assert not (await deduct(store, 5, "one")).replayed

    async def test_amounts_are_exact_to_the_limit(self, open_store: OpenStore) -> None:
        """A balance can be 2**53 - 1 micro-credits, digit for digit, and nothing more."""
        store = await open_store()
        await add(store, MAX_MICRO, "all")
        with pytest.raises(InvalidAmountError):
            await add(store, 1, "one more")
        with pytest.raises(InvalidAmountError):
            await add(store, MAX_MICRO, "all of it again")
        await deduct(store, 1, "one")
        assert await numbers_of(store) == (MAX_MICRO - 1, 0, MAX_MICRO - 1)
        await add(store, 1, "one more")
        assert await numbers_of(store) == (MAX_MICRO, 0, MAX_MICRO)

    async def test_holds_are_exact_to_the_limit(self, open_store: OpenStore) -> None:
        """Holds never pass 2**53 - 1 micro-credits, even with a floor that would allow it."""
        store = await open_store()
        await add(store, MAX_MICRO)
        await reserve(store, "all", MAX_MICRO, terms(floor=NEVER))
        with pytest.raises(InvalidAmountError):
            await reserve(store, "one more", 1, terms(floor=NEVER))
        with pytest.raises(InvalidAmountError):
            await extend(store, "all", 1)
        assert await numbers_of(store) == (MAX_MICRO, MAX_MICRO, 0)

    async def test_lowest_balance(self, open_store: OpenStore) -> None:
        """A balance can be as far below zero as above it."""
        store = await open_store()
        await deduct(store, MAX_MICRO, floor=NEVER)
        assert await numbers_of(store) == (NEVER, 0, NEVER)
        with pytest.raises(InsufficientCreditsError):
            await deduct(store, 1, "one more", floor=NEVER)

    @pytest.mark.parametrize("account", STRANGE_ACCOUNTS)
    async def test_strange_accounts(self, open_store: OpenStore, account: str) -> None:
        """Any Unicode names an account of its own."""
        store = await open_store()
        await add(store, 7, account=account)
        await reserve(store, "{l}:1", 2, account=account)
        settled = await settle(store, "{l}:1", 1, account=account)
        assert await numbers_of(store, account) == (6, 0, 6)
        assert (await entry_of(store, settled)).account == account

    @pytest.mark.parametrize(
        "account", ["", "x" * 257, "a\tb", "a\nb", "\x00", "\x1f", "\x7f", "\x85", "\ud800", "@ducto"]
    )
    async def test_refused_accounts(self, open_store: OpenStore, account: str) -> None:
        """Ids that are empty, too long, reserved or hold control characters are refused before anything is sent."""
        store = await open_store()
        with pytest.raises(InvalidIdError):
            await add(store, 1, account=account)
        with pytest.raises(InvalidIdError):
            await store.get_balance(account, conditions=KNOWN)

    async def test_stale_prices_are_refused(self, open_store: OpenStore) -> None:
        """An account that was charged under a newer activation tells older calls which; unpriced calls go on."""
        store = await open_store()
        await add(store, 100)
        await deduct(store, Price(1, version=2, activation=5), "new")
        with pytest.raises(StalePricing) as stale:
            await deduct(store, Price(1, version=1, activation=4), "old")
        assert stale.value.activation == 5
        with pytest.raises(StalePricing):
            await reserve(store, "old", Price(1, version=1, activation=4), terms())
        await reserve(store, "newer", Price(1, version=1, activation=6), terms())
        with pytest.raises(StalePricing):
            await deduct(store, Price(1, version=2, activation=5), "old")
        await deduct(store, 1, "unpriced")
        with pytest.raises(StalePricing):
            await deduct(store, Price(1, version=2, activation=5), "old")

    async def test_full_journal(self, open_store: OpenStore) -> None:
        """Above the limit nothing new is admitted, while settle, release, renew, freeze and reads go on."""
        store = await open_store(partitions=1)
        await add(store, 100)
        await reserve(store, "one", 10)
        await reserve(store, "two", 10)
        full = await open_store(journal_limit=3, partitions=1)
        with pytest.raises(JournalFullError):
            await add(full, 1, "refused")
        with pytest.raises(JournalFullError):
            await deduct(full, 1, "refused")
        with pytest.raises(JournalFullError):
            await reserve(full, "refused", 1)
        with pytest.raises(JournalFullError):
            await extend(full, "one", 1)
        for name in ("adjust_credits", "set_plan", "set_cap", "create_team"):
            with pytest.raises(JournalFullError):
                await OPERATIONS[name](full)
        await renew(full, "one", DAY_MS)
        await settle(full, "one", 4)
        await release(full, "two")
        await OPERATIONS["freeze"](full)
        assert await numbers_of(full) == (96, 0, 96)

    async def test_journal_limit_counts_entries(self, open_store: OpenStore) -> None:
        """As many entries as the limit are written, then it is full."""
        store = await open_store(journal_limit=2, partitions=1)
        await add(store, 1, "one")
        await add(store, 1, "two")
        with pytest.raises(JournalFullError):
            await add(store, 1, "three")
        assert (await add(store, 1, "two")).replayed
