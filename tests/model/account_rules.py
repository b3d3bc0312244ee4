"""Random changes to what accounts are: documents, plans, spend caps, teams, freezing."""

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from ducto_redis.engine.operation import CapRule, OperationKey
from tests.model.account import DAY
from tests.model.driver import Call, Driver
from tests.model.machine import CALLS, FINGERPRINTS, KEYS, MEMBERS, SCOPES, SECOND, TEAM, USER, MoneyRules, now_and_then
from tests.model.plans import plans

OF_PLANS = st.sampled_from([USER, USER, TEAM])
DOCUMENTS = 4


def has_caps(machine: Driver) -> bool:
    return any(account.caps for account in machine.model.accounts.values())


class SideBySide(MoneyRules):
    """All that may happen to an account."""

    def make_team(self, account: str, key: str) -> None:
        self.create_team(account, "m1", key, "this")
        self.set_member(account, "m2", "member", f"{key}/m2", "this")

    def assign(self, account: str, plan: str, zone: str, key: str, fingerprint: str, call: Call) -> None:
        self.set_plan(account, plan, zone, key, fingerprint, call)

    @precondition(lambda machine: now_and_then(machine) and machine.active < DOCUMENTS)
    @rule()
    def publish(self) -> None:
        self.active += 1

    @precondition(now_and_then)
    @rule(
        account=OF_PLANS,
        plan=st.sampled_from(["", *plans(1), "capped"]),
        zone=st.sampled_from(["", "", "Europe/Berlin"]),
        key=KEYS,
        fingerprint=FINGERPRINTS,
        call=CALLS,
    )
    def set_plan(self, account: str, plan: str, zone: str, key: str, fingerprint: str, call: Call) -> None:
        fingerprint = f"plan {fingerprint}"
        self.ask(
            lambda conditions: self.model.set_plan(account, plan, zone, key, fingerprint, conditions),
            lambda conditions: self.store.set_plan(
                account, plan, zone, OperationKey(key, DAY, fingerprint), conditions=conditions, cause=b""
            ),
            self.conditions(account, call),
        )

    @precondition(now_and_then)
    @rule(
        account=OF_PLANS,
        scope=SCOPES,
        window=st.sampled_from(["minute", "hour", "day", "week", "month", "total"]),
        rolling=st.booleans(),
        action=st.sampled_from(["deny", "deny", "warn", "notify"]),
        zone=st.sampled_from(["UTC", "Europe/Berlin"]),
        limit=st.integers(0, 40),
        key=KEYS,
        fingerprint=FINGERPRINTS,
        call=CALLS,
    )
    def set_cap(
        self, account: str, scope: str, window: str, rolling: bool, action: str, zone: str, limit: int, key: str,
        fingerprint: str, call: Call,
    ) -> None:  # fmt: skip
        fingerprint = f"cap {fingerprint}"
        rule_of_cap = CapRule(scope, window, limit, action, rolling and window != "total", zone)
        self.ask(
            lambda conditions: self.model.set_cap(account, rule_of_cap, key, fingerprint, conditions),
            lambda conditions: self.store.set_cap(
                account, rule_of_cap, OperationKey(key, DAY, fingerprint), conditions=conditions, cause=b""
            ),
            self.conditions(account, call),
        )

    @precondition(lambda machine: now_and_then(machine) and has_caps(machine))
    @rule(
        number=st.integers(0, 10),
        what=st.sampled_from(["remove_cap", "raise_cap", "clear_cap"]),
        limit=st.integers(0, 60),
        lives=st.sampled_from([0, 60 * SECOND, 3600 * SECOND, DAY]),
        key=KEYS,
        fingerprint=FINGERPRINTS,
    )
    def change_cap(self, number: int, what: str, limit: int, lives: int, key: str, fingerprint: str) -> None:
        known = [(account.name, cap) for account in self.model.accounts.values() for cap in account.caps]
        account, cap = known[number % len(known)]
        fingerprint = f"{what} {cap.scope} {cap.number} {fingerprint}"
        self.read_names(account)
        ids = {number: cap_id for (_, cap_id), number in self.names[account].items()}
        cap_id, until = ids[cap.number], self.model.now + lives
        operation_key = OperationKey(key, DAY, fingerprint)
        works = {
            "remove_cap": lambda: self.store.remove_cap(account, cap.scope, cap_id, operation_key, cause=b""),
            "raise_cap": lambda: self.store.raise_cap(
                account, cap.scope, cap_id, limit, until, operation_key, cause=b""
            ),
            "clear_cap": lambda: self.store.clear_cap(account, cap.scope, cap_id, operation_key, cause=b""),
        }
        self.compare(
            lambda: self.model.change_cap(account, what, cap.scope, cap.number, key, fingerprint, limit, until),
            works[what](),
        )

    @precondition(lambda machine: machine.steps % 9 == 0)
    @rule(account=OF_PLANS, reason=st.sampled_from(["", "", "unpaid"]), key=KEYS, fingerprint=FINGERPRINTS)
    def freeze(self, account: str, reason: str, key: str, fingerprint: str) -> None:
        fingerprint = f"freeze {reason} {fingerprint}"
        self.compare(
            lambda: self.model.freeze(account, reason, key, fingerprint),
            self.store.freeze(account, reason, OperationKey(key, DAY, fingerprint), cause=b""),
        )

    @precondition(now_and_then)
    @rule(
        account=st.sampled_from([TEAM, TEAM, TEAM, USER]),
        owner=st.sampled_from(["m1", ""]),
        key=KEYS,
        fingerprint=FINGERPRINTS,
    )
    def create_team(self, account: str, owner: str, key: str, fingerprint: str) -> None:
        fingerprint = f"team {fingerprint}"
        if account == USER and self.model.account(USER).team is None:
            return  # an account that may have everything else
        self.compare(
            lambda: self.model.create_team(account, "Team", owner, key, fingerprint),
            self.store.create_team(account, "Team", owner, OperationKey(key, DAY, fingerprint), cause=b""),
        )

    @precondition(now_and_then)
    @rule(
        account=st.sampled_from([TEAM, TEAM, TEAM, USER]),
        user=MEMBERS,
        role=st.sampled_from(["owner", "admin", "member", "member", "removed", "removed"]),
        key=KEYS,
        fingerprint=FINGERPRINTS,
    )
    def set_member(self, account: str, user: str, role: str, key: str, fingerprint: str) -> None:
        fingerprint = f"member {user} {fingerprint}"
        self.compare(
            lambda: self.model.set_member(account, user, role, key, fingerprint),
            self.store.set_member(account, user, role, OperationKey(key, DAY, fingerprint), cause=b""),
        )
