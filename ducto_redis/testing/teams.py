"""Teams: an account with members, who spends what, and what each of them may."""

import pytest

from ducto_redis.engine.operation import CapRule
from ducto_redis.errors import (
    CapReachedError,
    ConfigError,
    IdempotencyConflictError,
    MemberNotFoundError,
    TeamNotFoundError,
)
from ducto_redis.results import Team, TeamMember
from ducto_redis.testing.caller import Caller, Document, Plan
from ducto_redis.testing.calls import HOUR_MS, entry_of, key, micro, terms
from ducto_redis.testing.opening import ConformanceTests, OpenStore

TEAM = "acme"


async def founded(open_store: OpenStore, document: Document | None = None) -> Caller:
    """Return a caller of a team with credits, the owner ann and the member bob."""
    caller = Caller(await open_store(), document, account=TEAM)
    await caller.store.create_team(TEAM, "Acme Inc.", "ann", key("founded"), cause=b"")
    await set_member(caller, "bob", "member")
    await caller.add(1000)
    return caller


async def set_member(caller: Caller, member: str, role: str) -> bool:
    """Give a member a role: whether it was so already."""
    changed = await caller.store.set_member(TEAM, member, role, key(f"{member} {role}"), cause=b"")
    return changed.replayed


async def team_of(caller: Caller) -> Team:
    """Return the team."""
    team = (await caller.describe()).team
    assert team is not None
    return team


async def member_of(caller: Caller, user: str) -> TeamMember:
    """Return one of its members, removed ones included."""
    team = await team_of(caller)
    (member,) = [member for member in (*team.members, *team.removed) if member.user == user]
    return member


@pytest.mark.asyncio
class TeamConformance(ConformanceTests):
    """Members, their roles, their spending and their caps."""

    async def test_create_team(self, open_store: OpenStore) -> None:
        """A team has a name, a pool and its members; an account that is none has none."""
        caller = await founded(open_store)
        team = await team_of(caller)
        assert (team.team, team.name) == (TEAM, "Acme Inc.")
        assert [micro(amount) for amount in (team.balance, team.held, team.available)] == [1000, 0, 1000]
        assert {(member.user, member.role, micro(member.spent)) for member in team.members} == {
            ("ann", "owner", 0),
            ("bob", "member", 0),
        }
        assert (await Caller(caller.store).describe()).team is None

    async def test_a_team_is_created_once(self, open_store: OpenStore) -> None:
        """The same key creates once; a team that is there already is refused, and an account can become one."""
        caller = await founded(open_store)
        assert (await caller.store.create_team(TEAM, "Acme Inc.", "ann", key("founded"), cause=b"")).replayed
        with pytest.raises(ConfigError):
            await caller.store.create_team(TEAM, "Acme Inc.", "ann", key("again"), cause=b"")
        with pytest.raises(IdempotencyConflictError):
            await caller.store.create_team(TEAM, "Acme Inc.", "ann", key("founded", "otherwise"), cause=b"")
        other = Caller(caller.store)
        await other.add(5)
        await other.store.create_team(other.account, "One", "", key("founded"), cause=b"")
        team = await team_of(other)
        assert (team.members, micro(team.balance)) == ((), 5)

    async def test_team_gets_no_bonus(self, open_store: OpenStore) -> None:
        """A team opens by being created, without the plan and the bonus of new accounts."""
        document = Document({"free": Plan(100)}, default="free", bonus=50)
        caller = await founded(open_store, document)
        described = await caller.describe()
        assert (described.plan, micro(described.balance.balance)) == ("", 1000)

    async def test_members_spend(self, open_store: OpenStore) -> None:
        """A member spends from the pool, and what each of them ever spent is known."""
        caller = await founded(open_store)
        charged = await caller.deduct(30, "one", member="ann")
        await caller.deduct(20, "two", member="bob")
        await caller.deduct(5, "nobody in particular")
        await caller.reserve("a lease", 50, member="bob")
        settled = await caller.settle("a lease", 40)
        assert (await caller.numbers(), micro(charged.balance_after)) == ((905, 0, 905), 970)
        assert [micro((await member_of(caller, user)).spent) for user in ("ann", "bob")] == [30, 60]
        for result, member in ((charged, "ann"), (settled, "bob")):
            assert (await entry_of(caller.store, result)).read_details().member == member

    async def test_only_members_spend(self, open_store: OpenStore) -> None:
        """A stranger spends nothing, and an account that is no team has no members."""
        caller = await founded(open_store)
        with pytest.raises(MemberNotFoundError) as refused:
            await caller.deduct(1, "refused", member="eve")
        assert (refused.value.team, refused.value.member) == (TEAM, "eve")
        with pytest.raises(MemberNotFoundError):
            await caller.reserve("refused", 1, member="eve")
        other = Caller(caller.store)
        await other.add(10)
        with pytest.raises(MemberNotFoundError):
            await other.deduct(1, "refused", member="ann")

    async def test_removed_member(self, open_store: OpenStore) -> None:
        """A removed member's leases settle, nothing new is admitted, and what was spent is remembered."""
        caller = await founded(open_store)
        await caller.reserve("settled", 30, member="bob")
        await caller.reserve("released", 30, member="bob")
        await caller.reserve("extended", 30, member="bob")
        await set_member(caller, "bob", "removed")
        for refused in (
            caller.deduct(1, "refused", member="bob"),
            caller.reserve("refused", 1, member="bob"),
            caller.extend("extended", 1),
        ):
            with pytest.raises(MemberNotFoundError):
                await refused
        assert micro((await caller.settle("settled", 25)).amount) == 25
        await caller.release("released")
        team = await team_of(caller)
        assert ([member.user for member in team.members], [member.user for member in team.removed]) == (
            ["ann"],
            ["bob"],
        )
        assert micro((await member_of(caller, "bob")).spent) == 25
        await set_member(caller, "bob", "admin")
        await caller.deduct(5, "back again", member="bob")
        assert micro((await member_of(caller, "bob")).spent) == 30

    async def test_roles(self, open_store: OpenStore) -> None:
        """Roles change; a role that somebody has already is no change."""
        caller = await founded(open_store)
        assert not await set_member(caller, "bob", "admin")
        assert (await member_of(caller, "bob")).role == "admin"
        assert (await caller.store.set_member(TEAM, "bob", "admin", key("again"), cause=b"")).replayed
        changed = await caller.store.set_member(TEAM, "cy", "member", key("cy"), cause=b"{}")
        entry = await entry_of(caller.store, changed)
        assert (entry.operation, entry.account, entry.cause) == ("set_member", TEAM, "{}")

    async def test_the_last_owner_stays(self, open_store: OpenStore) -> None:
        """A team that has an owner keeps one."""
        caller = await founded(open_store)
        for role in ("removed", "member"):
            with pytest.raises(ConfigError):
                await caller.store.set_member(TEAM, "ann", role, key(role), cause=b"")
        await set_member(caller, "bob", "owner")
        await set_member(caller, "ann", "removed")
        assert (await member_of(caller, "ann")).role == "removed"

    async def test_who_is_not_there(self, open_store: OpenStore) -> None:
        """Nobody is removed who is not a member, and nobody joins what is no team."""
        caller = await founded(open_store)
        with pytest.raises(MemberNotFoundError):
            await set_member(caller, "eve", "removed")
        await set_member(caller, "bob", "removed")
        with pytest.raises(MemberNotFoundError):
            await caller.store.set_member(TEAM, "bob", "removed", key("again"), cause=b"")
        with pytest.raises(TeamNotFoundError):
            await caller.store.set_member("no team", "ann", "member", key("joined"), cause=b"")

    async def test_cap_of_a_member(self, open_store: OpenStore) -> None:
        """A member's cap counts what that member spends and holds, and nobody else's."""
        caller = await founded(open_store)
        await caller.set_cap("day", 50, scope="member/bob")
        await caller.deduct(500, "one", member="ann")
        await caller.reserve("a lease", 30, member="bob")
        with pytest.raises(CapReachedError) as refused:
            await caller.deduct(21, "refused", member="bob")
        assert (refused.value.scope, micro(refused.value.held)) == ("member/bob", 30)
        await caller.settle("a lease", 20)
        await caller.deduct(30, "two", member="bob")
        (cap,) = (await member_of(caller, "bob")).caps
        assert (micro(cap.used), micro(cap.held)) == (50, 0)

    async def test_caps_of_all_members(self, open_store: OpenStore) -> None:
        """A plan's cap for members is one for each of them."""
        document = Document({"team": Plan(caps=(CapRule("members", "day", 50), CapRule("account", "day", 80)))})
        caller = await founded(open_store, document)
        await caller.set_plan("team")
        await caller.deduct(50, "one", member="ann")
        with pytest.raises(CapReachedError) as refused:
            await caller.deduct(1, "refused", member="ann")
        assert refused.value.scope == "member/ann"
        await caller.deduct(30, "two", member="bob")
        with pytest.raises(CapReachedError) as refused:
            await caller.deduct(1, "refused", member="bob")
        assert refused.value.scope == "account"

    async def test_plan_of_a_team(self, open_store: OpenStore) -> None:
        """A team can have a plan: its allowance pays for all members."""
        caller = await founded(open_store, Document({"team": Plan(100)}))
        await caller.set_plan("team")
        assert micro((await caller.deduct(70, "one", member="ann")).allowance_consumed) == 70
        assert micro((await caller.deduct(70, "two", member="bob")).allowance_consumed) == 30
        assert micro((await member_of(caller, "bob")).spent) == 70

    async def test_expiry_counts_for_the_member(self, open_store: OpenStore) -> None:
        """The charge at the expiry of a member's lease is that member's spending; a late settle puts it right."""
        caller = await founded(open_store)
        await caller.reserve("a lease", 30, terms(on_expiry="charge"), member="bob")
        later = caller.at(await open_store(clock_offset_ms=HOUR_MS))
        await later.store.sweep_partition(later.store.namespace.partition_of(TEAM))
        assert micro((await member_of(later, "bob")).spent) == 30
        await later.settle("a lease", 10)
        assert micro((await member_of(later, "bob")).spent) == 10
