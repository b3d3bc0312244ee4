"""What an account is: its plan, its spend caps, its members, and whether it is frozen."""

from ducto_redis.engine.operation import CapRule, Conditions
from tests.model import caps, terms
from tests.model.account import Answer, Member, Refused
from tests.model.base import ModelBase


class Standing(ModelBase):
    """What moves no credits."""

    def set_plan(self, name: str, plan: str, zone: str, key: str, fingerprint: str, conditions: Conditions) -> Answer:
        account = self.account(name)
        if earlier := self._earlier(account, key, fingerprint):
            return earlier
        self._apply_due(account)
        new = account.seq == 0 and conditions.opens
        known = account.plan
        zone = zone or (known.time_zone if known else "")
        if not new and ((known is None and not plan) or (known and (known.id, known.time_zone) == (plan, zone))):
            return {"replayed": True}

        def change() -> Answer:
            if known is not None and 0 < conditions.activation < known.activation:
                raise Refused("stale", known.activation)
            if plan and not terms.mean(conditions.terms, plan, self.now):
                raise terms.ask(account, plan, 0, zone, (), self.now)
            if new:
                terms.open_with_bonus(account, conditions)
            terms.assign(account, plan, zone, conditions, self.now)
            self._journal(account, "set_plan", key)
            return {}

        return self._remember(account, key, fingerprint, self._make(account, change))

    def set_cap(self, name: str, rule: CapRule, key: str, fingerprint: str, conditions: Conditions) -> Answer:
        account = self.account(name)
        if earlier := self._earlier(account, key, fingerprint):
            return earlier

        def change() -> Answer:
            cap = caps.find(account, rule.scope, "own", rule) or caps.make(account, rule.scope, "own", rule)
            cap.limit = rule.limit
            terms.take(account, conditions, (rule.scope,), self.now)
            if rule.scope.startswith("member/"):
                self._check_member(account, rule.scope.removeprefix("member/"))
            if len([known for known in account.caps if known.scope == rule.scope]) > caps.CAPS_OF_A_SCOPE:
                raise Refused("over_limit")
            account.extras = True
            self._journal(account, "set_cap", key)
            return {}

        return self._remember(account, key, fingerprint, self._step(account, change))

    def change_cap(
        self, name: str, what: str, scope: str, number: int, key: str, fingerprint: str, limit: int = 0, until: int = 0
    ) -> Answer:
        """Remove, raise or clear a cap."""
        account = self.account(name)
        if earlier := self._earlier(account, key, fingerprint):
            return earlier

        def change() -> Answer:
            cap = next((cap for cap in account.caps if (cap.scope, cap.number) == (scope, number)), None)
            if cap is None:
                raise Refused("no_cap")
            if what == "remove_cap":
                if cap.source == "plan":
                    raise Refused("config")
                account.caps.remove(cap)
            elif what == "raise_cap":
                if until <= self.now:
                    raise Refused("past")
                cap.raised, cap.raised_until = limit, until
            else:
                cap.used, cap.crossed = 0, False
                cap.buckets.clear()
            self._journal(account, what, key)
            return {}

        return self._remember(account, key, fingerprint, self._step(account, change))

    def freeze(self, name: str, reason: str, key: str, fingerprint: str) -> Answer:
        account = self.account(name)
        if earlier := self._earlier(account, key, fingerprint):
            return earlier
        self._apply_due(account)
        if bool(account.frozen) == bool(reason):
            return {"replayed": True}
        account.frozen, account.extras = reason, True
        self._journal(account, "freeze" if reason else "unfreeze", key)
        return self._remember(account, key, fingerprint, {"transaction": account.seq})

    def create_team(self, name: str, team: str, owner: str, key: str, fingerprint: str) -> Answer:
        account = self.account(name)
        if earlier := self._earlier(account, key, fingerprint):
            return earlier
        self._apply_due(account)
        if account.team is not None:
            raise Refused("config")
        account.team, account.extras = team, True
        if owner:
            account.members[owner] = Member("owner", self.now)
        self._journal(account, "create_team", key)
        return self._remember(account, key, fingerprint, {"transaction": account.seq})

    def set_member(self, name: str, user: str, role: str, key: str, fingerprint: str) -> Answer:
        account = self.account(name)
        if earlier := self._earlier(account, key, fingerprint):
            return earlier
        self._apply_due(account)
        if account.team is None:
            raise Refused("not_team")
        member = account.members.get(user)
        if role == "removed" and (member is None or member.role == "removed"):
            raise Refused("not_member", user)
        if member is not None and member.role == role:
            return {"replayed": True}
        owners = [other for other in account.members if account.members[other].role == "owner"]
        if owners == [user]:
            raise Refused("config")
        if member is None or member.role == "removed":
            member = account.members[user] = Member(role, self.now, member.spent if member else 0)
        member.role = role
        self._journal(account, "set_member", key)
        return self._remember(account, key, fingerprint, {"transaction": account.seq})
