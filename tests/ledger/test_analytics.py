"""What was spent, as the roll-ups answer it, against sums over the entries."""

import itertools
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache
from threading import Thread
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ducto_redis.errors import ConfigError
from ducto_redis.ledger import Ledger
from ducto_redis.ledger.analytics import Analytics
from ducto_redis.money import from_micro
from tests.ledger.entries import Account, Journal, cause_of
from tests.ledger.lives import NAMESPACE, NIGHT, Life, Moved, at_of, grouped, parts, summed, without_nothing, written

ZERO = Decimal("0.000000")

accounts = st.sampled_from(("a", "b", "team"))
models = st.sampled_from(("gpt", "claude"))
amounts = st.integers(0, 2_000_000)
waits = st.one_of(st.integers(0, 600_000), st.integers(0, 30 * 3_600_000))
STEPS = st.lists(
    st.tuples(
        st.sampled_from(("deduct", "deduct", "refund", "settle", "release", "expire", "add")),
        waits,
        accounts,
        models,
        st.sampled_from(("", "ann", "bob")),
        amounts,
        amounts,
    ),
    min_size=1,
    max_size=30,
)
ZONES = st.sampled_from(("UTC", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe", "America/St_Johns"))


NAMESPACES = itertools.count()


@cache
def shared_ledger() -> Ledger:
    """One for all examples, each of which has a namespace of its own: migrating takes longer than they do."""
    ledger = Ledger.from_url("sqlite://")
    ledger.migrate()
    return ledger


def life_of(steps: Sequence[tuple[Any, ...]]) -> Life:
    life = Life()
    expired: list[tuple[str, str]] = []
    for step, wait, name, model, member, amount, other in steps:
        life.wait(wait)
        small, large = sorted((amount, other))
        if step == "deduct":
            life.deduct(name, large, model if amount % 3 else None, member, allowance=small, tokens=other)
        elif step == "add":
            life.add(name, large)
        elif step == "refund":
            life.refund(name, amount)
        elif step == "expire" or not expired:
            expired.append((name, life.expire(name, amount + 1, model)))
        elif step == "settle":
            life.settle_late(*expired.pop(), large, model, small, amount)
        else:
            life.release_late(*expired.pop())
    return life


@given(steps=STEPS, zone=ZONES, start=st.integers(0, 10**9), length=st.integers(0, 10**9), open_ended=st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_grouping_adds_up(
    steps: Sequence[tuple[Any, ...]], zone: str, start: int, length: int, open_ended: bool
) -> None:
    """Whatever is asked, of whatever time, is the sum of the entries in it: by account, model, member, day, in all."""
    life = life_of(steps)
    since = None if open_ended else NIGHT + timedelta(milliseconds=start)
    until = None if since is None else since + timedelta(milliseconds=length)
    moved = [it for it in life.moved if (since is None or it.at >= since) and (until is None or it.at < until)]
    namespace = f"n{next(NAMESPACES)}"
    analytics = written(shared_ledger(), life.raw, namespace=namespace)
    report = shared_ledger().verify(namespace)
    assert report.ok, (report.failures, report.rollups)
    by_user = {it.account: parts(it) for it in analytics.spend_by_user(since, until)}
    assert without_nothing(by_user) == without_nothing(grouped(moved, lambda it: it.account))
    by_day = {it.day: parts(it) for it in analytics.daily_spend(since, until, time_zone=zone)}
    local = ZoneInfo(zone)
    assert without_nothing(by_day) == without_nothing(grouped(moved, lambda it: it.at.astimezone(local).date()))
    assert parts(analytics.aggregate_stats(since, until)) == summed(moved)
    by_model = [parts(it) for it in analytics.spend_by_model(since, until)]
    assert {name: sum(it[name] for it in by_model) for name in summed([])} == summed(moved)
    for name in ("a", "team"):
        own = [it for it in moved if it.account == name]
        members = {it.member: parts(it) for it in analytics.spend_by_member(name, since, until)}
        assert without_nothing(members) == without_nothing(grouped(own, lambda it: it.member))
        assert parts(analytics.aggregate_stats(since, until, account=name)) == summed(own)
        days = {it.day: parts(it) for it in analytics.daily_spend(since, until, time_zone=zone, account=name)}
        assert without_nothing(days) == without_nothing(grouped(own, lambda it: it.at.astimezone(local).date()))
    tokens = sum(it.tokens for it in moved)
    for by in ("account", "model", "member", "day", "hour"):
        rows = analytics.usage("input_tokens", by, since, until, time_zone=zone)  # type: ignore[arg-type]
        assert sum(row.quantity for row in rows) == tokens, by


@pytest.fixture
def busy(ledger: Ledger) -> tuple[Analytics, Life]:
    """A ledger with a few charges over two days."""
    life = Life(datetime(2026, 3, 28, 12, 0, tzinfo=UTC))
    life.wait(0)
    life.add("a", 100_000_000)
    life.deduct("a", 5_000_000, "gpt", allowance=2_000_000, tokens=100)
    life.deduct("b", 1_000_000, "claude", tokens=10)
    life.wait(24 * 3_600_000)
    life.deduct("a", 3_000_000, "claude", tokens=30)
    life.refund("a", 500_000)
    life.deduct("team", 4_000_000, "gpt", member="ann", tokens=40)
    life.deduct("team", 1_000_000, "gpt", member="bob", tokens=1)
    life.deduct("team", 250_000)
    return written(ledger, life.raw, batch=3), life


def test_who_spent_what(busy: tuple[Analytics, Life]) -> None:
    """Most first; what the allowance paid is part of it and named, refunds are apart and netted."""
    analytics, _ = busy
    spent = analytics.spend_by_user()
    assert [it.account for it in spent] == ["a", "team", "b"]
    first = spent[0]
    assert (first.charges, first.charged, first.allowance) == (2, Decimal(8), Decimal(2))
    assert (first.refunded, first.net) == (Decimal("0.5"), Decimal("7.5"))
    assert str(first.net) == "7.500000"
    assert analytics.top_users(1) == spent[:1]
    models = {it.model: it.charged for it in analytics.spend_by_model()}
    assert models == {"gpt": Decimal(10), "claude": Decimal(4), None: Decimal("0.25")}
    assert {it.model: it.refunded for it in analytics.spend_by_model(account="a")} == {
        "gpt": ZERO,
        "claude": Decimal("0.5"),
    }
    members = [(it.member, it.charged) for it in analytics.spend_by_member("team")]
    assert members == [("ann", Decimal(4)), ("bob", Decimal(1)), (None, Decimal("0.25"))]


def test_a_time_is_half_open(busy: tuple[Analytics, Life]) -> None:
    """A charge at the start is in, one at the end is not; naive times are UTC."""
    analytics, life = busy
    at = [it.at for it in life.moved]
    assert analytics.spend_by_user(at[2], at[2]) == []
    assert [it.account for it in analytics.spend_by_user(at[0], at[1])] == ["a"]
    assert sum(it.charges for it in analytics.spend_by_user(at[0].replace(tzinfo=None), at[2])) == 2
    just_after = at[0] + timedelta(microseconds=1)
    assert [it.account for it in analytics.spend_by_user(just_after, at[2])] == ["b"]


def test_days_follow_the_time_zone(busy: tuple[Analytics, Life]) -> None:
    """Days on which nothing moved are left out; a day has the zone's date."""
    analytics, _ = busy
    assert [(it.day, it.charged) for it in analytics.daily_spend()] == [
        (date(2026, 3, 28), Decimal(6)),
        (date(2026, 3, 29), Decimal("8.25")),
    ]
    assert [it.day for it in analytics.daily_spend(time_zone="Pacific/Kiritimati")] == [
        date(2026, 3, 29),
        date(2026, 3, 30),
    ]
    with pytest.raises(ConfigError, match="Europe/Berlin"):
        analytics.daily_spend(time_zone="Berlin")


def test_days_on_which_clocks_change(ledger: Ledger) -> None:
    """A day of 25 hours has all of them, and one charge each minute is in exactly one day."""
    life = Life(datetime(2026, 10, 24, 21, 0, tzinfo=UTC))
    for _ in range(28):
        life.wait(3_600_000 - 1)
        life.deduct("a", 1_000_000)
    days = written(ledger, life.raw).daily_spend(time_zone="Europe/Berlin")
    assert [(it.day.day, it.charges) for it in days] == [(25, 25), (26, 3)]


def test_aggregate_stats(busy: tuple[Analytics, Life]) -> None:
    """What came in, by type; what stands out; the average of the days with charges, rounded half up."""
    analytics, _ = busy
    stats = analytics.aggregate_stats()
    assert (stats.accounts, stats.top_account, stats.top_model) == (3, "a", "gpt")
    assert stats.average_day == Decimal("7.125")
    assert stats.added == {"purchase": Decimal(100)}
    assert (stats.adjusted, stats.expired, stats.lost) == (ZERO, ZERO, ZERO)
    nothing = analytics.aggregate_stats(end=datetime(2020, 1, 1))
    assert (nothing.accounts, nothing.charged, nothing.average_day, nothing.top_account) == (0, ZERO, ZERO, None)


def test_what_was_expired_and_lost(ledger: Ledger) -> None:
    """Grants that expired, and what refunds could not return, have numbers of their own."""
    life = Life()
    account = life.account("a")
    life.add("a", 10_000_000)
    life.deduct("a", 4_000_000)
    charge = f"0-1-{life.raw[-1][0]}"
    raw = [
        *life.raw,
        account.refund(charge, 3_000_000, allowance=1_000_000, lost=500_000),
        account.expire_grant(2_000_000),
    ]
    stats = written(ledger, raw).aggregate_stats()
    assert (stats.refunded, stats.lost, stats.expired) == (Decimal(3), Decimal("0.5"), Decimal(2))
    assert ledger.verify().ok
    assert [it.refund_of for it in ledger.refunds(NAMESPACE, charge)] == [charge]


def test_an_entry_that_comes_again_is_added_once(busy: tuple[Analytics, Life], ledger: Ledger) -> None:
    """Whatever is delivered twice changes no sum."""
    analytics, life = busy
    before = analytics.aggregate_stats()
    ledger.write(NAMESPACE, 0, life.raw[2:])
    assert analytics.aggregate_stats() == before
    assert ledger.verify().ok


def test_the_reserved_account_never_appears(ledger: Ledger, journal: Journal) -> None:
    """Pricing documents are journalled too, and move nothing."""
    account = Account(journal, "@ducto")
    entry = journal.entry("@ducto", 1, "publish_pricing", changes={"pricing/1": "{}"})
    analytics = written(ledger, [entry])
    assert account.name not in [it.account for it in analytics.spend_by_user()]
    assert analytics.aggregate_stats().accounts == 0
    assert ledger.verify().ok


def test_usage_of_several_models_at_once(ledger: Ledger, account: Account) -> None:
    """Each model's part of the usage is its own; the charge belongs to none of them."""
    cause = cause_of(
        {"model": "gpt", "input_tokens": 3, "tool_calls": [{"name": "x", "count": 2}, {"name": "y"}]},
        {"model": "claude", "input_tokens": 4, "measures": {"pages": 2.5}},
    )
    raw = [
        account.add(100),
        account.deduct(7, cause=cause),
        account.deduct(1, cause=cause_of({"measures": {"pages": 1}})),
    ]
    analytics = written(ledger, raw)
    assert [(it.of, it.quantity) for it in analytics.usage("input_tokens")] == [("claude", 4), ("gpt", 3)]
    assert [(it.of, it.quantity) for it in analytics.usage("tool_calls", "account")] == [("u1", 3)]
    assert [(it.of, str(it.quantity)) for it in analytics.usage("pages")] == [
        ("claude", "2.500000"),
        (None, "1.000000"),
    ]
    [spent] = analytics.spend_by_model()
    assert (spent.model, spent.charged) == (None, from_micro(8))
    assert ledger.verify().ok


def test_usage_that_nobody_can_have(ledger: Ledger, account: Account) -> None:
    """Numbers out of the world, or no numbers, keep no charge out of the ledger and break no sum."""
    causes = [
        f'{{"usage":[["m",{2**70}]]}}',
        cause_of({"model": "m", "measures": {"pages": 1e300, "b": -4}}),
        cause_of({"model": "m", "input_tokens": "many"}),
        cause_of({"model": "m", "input_tokens": -5, "output_tokens": 7}),
        cause_of({"model": "é" * 3000, "operation": 1}),
    ]
    raw = [account.add(100), *(account.deduct(1, cause=cause) for cause in causes)]
    assert ledger.write(NAMESPACE, 0, raw).written == 6
    analytics = ledger.analytics(NAMESPACE)
    assert analytics.aggregate_stats().charges == 5
    assert [it.quantity for it in analytics.usage("input_tokens", "account")] == [2**40]
    assert [it.quantity for it in analytics.usage("output_tokens", "account")] == [7]
    assert [it.quantity for it in analytics.usage("pages")] == [Decimal(2**40)]
    assert ledger.verify().ok


def test_wrong_questions(ledger: Ledger) -> None:
    """What cannot be asked is said."""
    analytics = ledger.analytics(NAMESPACE)
    with pytest.raises(ConfigError, match="must end after its start"):
        analytics.spend_by_user(datetime(2026, 1, 2), datetime(2026, 1, 1))
    with pytest.raises(ConfigError, match="1 to 1000"):
        analytics.top_users(0)
    with pytest.raises(ConfigError, match="grouped by"):
        analytics.usage("input_tokens", "planet")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="threshold"):
        analytics.anomalies(threshold=0)
    with pytest.raises(ConfigError, match="must be a datetime"):
        analytics.daily_spend(date(2026, 1, 1))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="cursor"):
        analytics.list_user_transactions("a", cursor="nonsense")
    with pytest.raises(ConfigError, match="list of names"):
        analytics.list_user_transactions("a", operations="deduct")
    with pytest.raises(ConfigError, match=r"no operation 'deducted'; there are .*deduct, .*settle"):
        analytics.list_user_transactions("a", operations=["settle", "deducted"])
    assert analytics.spend_by_user() == []
    assert analytics.anomalies() == []


def test_a_long_time_is_read_by_days(memory_ledger: Ledger) -> None:
    """Days of roll-ups and hours at the ends together are the same as entries; short times are read by hours."""
    life = Life(datetime(2026, 1, 1, 0, 30, tzinfo=UTC))
    for number in range(300):
        life.deduct("ab"[number % 2], 1_000_000 + number)
        life.wait(7 * 3_600_000 - 1)
    analytics = written(memory_ledger, life.raw, batch=50)
    for days, length in ((3, 60), (0, 2), (40, 3), (1, 1), (10, 80)):
        start = datetime(2026, 1, 1, 5, 17, tzinfo=UTC) + timedelta(days=days)
        end = start + timedelta(days=length, hours=9)
        own = [it for it in life.moved if start <= it.at < end]
        assert {it.account: parts(it) for it in analytics.spend_by_user(start, end)} == grouped(
            own, lambda it: it.account
        )
        assert parts(analytics.aggregate_stats(start, end, account="a")) == summed(
            [it for it in own if it.account == "a"]
        )


def test_weeks_are_made_once_they_are_over(ledger: Ledger) -> None:
    """Whole weeks are read from their roll-up, also where entries of several partitions came late, or were rebuilt."""
    lives = {partition: Life(datetime(2026, 1, 5, 0, 30, tzinfo=UTC)) for partition in (0, 3)}
    for partition, life in lives.items():
        for number in range(120):
            life.wait(9 * 3_600_000)
            name = "new" if number % 9 == 4 else "ab"[number % 2]
            life.deduct(f"{name}{partition}", 1_000_000 + number, ("gpt", "claude")[number % 2], tokens=7)
    late = [entry for entry in lives[0].raw if entry in lives[0].raw[10:20] or b"new0" in entry[1]]
    ledger.write(NAMESPACE, 0, [entry for entry in lives[0].raw if entry not in late])
    ledger.write(NAMESPACE, 3, lives[3].raw[:50])  # this one is weeks behind
    analytics = ledger.analytics(NAMESPACE)
    moved = [*lives[0].moved, *lives[3].moved]
    missing = [at_of(entry) for entry in late]
    there = [it for it in lives[0].moved if it.at not in missing] + lives[3].moved[:50]
    check_weeks(analytics, there)
    assert ledger.verify().rollups == ()
    ledger.write(NAMESPACE, 0, late)
    ledger.write(NAMESPACE, 3, lives[3].raw[50:])
    check_weeks(analytics, moved)
    assert ledger.verify().ok


def check_weeks(analytics: Analytics, moved: Sequence[Moved]) -> None:
    first = datetime(2026, 1, 1, tzinfo=UTC)  # a Thursday, as the first day of 1970: weeks begin with it
    for start, days in ((0, 70), (0, 7), (7, 14), (6, 16), (13, 8), (8, 5), (3, 30.4), (9.98, 21.03)):
        since = first + timedelta(days=start)
        until = since + timedelta(days=days)
        own = [it for it in moved if since <= it.at < until]
        by_user = {it.account: parts(it) for it in analytics.spend_by_user(since, until)}
        assert by_user == grouped(own, lambda it: it.account), (start, days)
        usage = {it.of: it.quantity for it in analytics.usage("input_tokens", "account", since, until)}
        assert usage == {name: 7 * its["charges"] for name, its in by_user.items()}, (start, days)
    stats = analytics.aggregate_stats()
    assert parts(stats) == summed(moved)
    top = min(grouped(moved, lambda it: it.account).items(), key=lambda item: (-item[1]["charged"], item[0]))
    assert (stats.accounts, stats.top_account) == (len({it.account for it in moved}), top[0])
    assert [it.account for it in analytics.top_users(1)] == [top[0]]
    assert sum(it.charges for it in analytics.spend_by_user()) == len(moved)


def test_days_that_halve_hours(ledger: Ledger) -> None:
    """Each day of a zone off by a half or a quarter of an hour is the sum of its own charges, beside a cut hour's."""
    life = Life(datetime(2026, 4, 1, 10, 0, tzinfo=UTC))
    for number in range(150):
        life.wait(17 * 60_000)
        life.deduct("ab"[number % 2], 1_000_000 + number, "gpt", tokens=1 + number)
    analytics = written(ledger, life.raw, batch=40)
    for zone in ("Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns", "Europe/Berlin"):
        for start, end in ((None, None), (life.moved[3].at, life.moved[-3].at)):
            own = [it for it in life.moved if (start is None or it.at >= start) and (end is None or it.at < end)]
            by_day: dict[date, list[Moved]] = {}
            for it in own:
                by_day.setdefault(it.at.astimezone(ZoneInfo(zone)).date(), []).append(it)
            days = analytics.daily_spend(start, end, time_zone=zone)
            assert {it.day: parts(it) for it in days} == {day: summed(its) for day, its in by_day.items()}
            usage = analytics.usage("input_tokens", "day", start, end, time_zone=zone)
            assert {it.of: it.quantity for it in usage} == {
                day: sum(it.tokens for it in its) for day, its in by_day.items()
            }


def test_pages_of_transactions(busy: tuple[Analytics, Life], ledger: Ledger) -> None:
    """Newest first; filters; pages neither repeat nor skip, also while entries arrive."""
    analytics, life = busy
    page = analytics.list_user_transactions("a", limit=2)
    assert [it.operation for it in page.transactions] == ["refund", "deduct"]
    assert (page.transactions[0].refund_of, page.transactions[0].model) == (
        page.transactions[1].transaction_id,
        "claude",
    )
    life.deduct("a", 7)
    ledger.write(NAMESPACE, 0, life.raw[-1:])
    rest = analytics.list_user_transactions("a", limit=2, cursor=page.cursor)
    assert [it.operation for it in rest.transactions] == ["deduct", "add_credits"]
    assert rest.cursor is None
    assert [it.charged for it in rest.transactions] == [Decimal(5), ZERO]
    charges = analytics.list_user_transactions("a", operations=["deduct"]).transactions
    assert [it.charged for it in charges] == [from_micro(7), Decimal(3), Decimal(5)]
    purchases = analytics.list_user_transactions("a", types=["purchase"]).transactions
    assert [(it.amount, it.type) for it in purchases] == [(Decimal(100), "purchase")]
    first_day = analytics.list_user_transactions("a", end=life.moved[0].at + timedelta(hours=1)).transactions
    assert [it.operation for it in first_day] == ["deduct", "add_credits"]
    assert analytics.list_user_transactions("nobody").transactions == ()


def test_transactions_while_a_writer_writes(ledger: Ledger, journal: Journal) -> None:
    """A reader that pages through an account sees each entry that was there at its start exactly once."""
    account = Account(journal, "u1")
    ledger.write(NAMESPACE, 0, [account.add(1) for _ in range(60)])
    batches = [[account.add(1) for _ in range(10)] for _ in range(30)]

    def write() -> None:
        for batch in batches:
            ledger.write(NAMESPACE, 0, batch)

    writer = Thread(target=write)
    writer.start()
    seen: list[str] = []
    analytics, cursor = ledger.analytics(NAMESPACE), None
    while True:
        page = analytics.list_user_transactions("u1", limit=7, cursor=cursor)
        seen += [it.transaction_id for it in page.transactions]
        cursor = page.cursor
        if cursor is None:
            break
    writer.join()
    assert len(seen) == len(set(seen))
    everything = [it.transaction_id for it in ledger.entries(NAMESPACE, "u1", limit=1000)]
    assert everything[everything.index(seen[0]) :] == seen
    assert len(everything) == 360
    assert ledger.verify().ok


def test_metadata_is_the_callers_own(ledger: Ledger, account: Account) -> None:
    """What was passed with a change comes back with it."""
    raw = [account.add(5), account.deduct(1, cause='{"metadata":{"order":"4711","lines":[1,2]}}')]
    [newest, oldest] = written(ledger, raw).list_user_transactions("u1").transactions
    assert newest.metadata == {"order": "4711", "lines": [1, 2]}
    assert (oldest.metadata, oldest.at) == (None, at_of(raw[0]))


def test_cut_hours_add_up_too(busy: tuple[Analytics, Life], ledger: Ledger) -> None:
    """Where a bound cuts an hour, the database adds the entries themselves up: to the same as the roll-ups."""
    analytics, life = busy
    lease = life.expire("b", 9_000_000, "claude")
    life.settle_late("b", lease, 2_000_000, "claude", 500_000, 77)
    ledger.write(NAMESPACE, 0, life.raw[-3:])
    for cut in (life.moved[0].at, life.moved[2].at, life.moved[-1].at, life.now + timedelta(milliseconds=5)):
        before = [it for it in life.moved if it.at < cut]
        after = [it for it in life.moved if it.at >= cut]
        for moved, time in ((before, (None, cut)), (after, (cut, None))):
            models = {it.model: parts(it) for it in analytics.spend_by_model(*time)}
            assert without_nothing(models) == without_nothing(grouped(moved, lambda it: it.model))
            members = {it.member: parts(it) for it in analytics.spend_by_member("team", *time)}
            of_team = [it for it in moved if it.account == "team"]
            assert without_nothing(members) == without_nothing(grouped(of_team, lambda it: it.member))
            assert parts(analytics.aggregate_stats(*time)) == summed(moved)
            days = analytics.daily_spend(*time, time_zone="Asia/Kolkata")
            assert sum(it.charged for it in days) == summed(moved)["charged"]
            usage = analytics.usage("input_tokens", "day", *time, time_zone="Asia/Kolkata")
            assert sum(it.quantity for it in usage) == sum(it.tokens for it in moved)
