"""The operations of a store as the suite knows them: a call of each, and the entries that it writes."""

from collections.abc import Awaitable, Callable

from ducto_redis.engine.operation import CapRule, Charge, Conditions, Terms
from ducto_redis.store.contract import CreditStore
from ducto_redis.testing.calls import ACCOUNT, KNOWN, add, deduct, extend, key, release, renew, reserve, settle

LEASE = "a lease"

CHARGE = Charge("0-1-1-0", 1, "", 1)
OPERATIONS: dict[str, Callable[[CreditStore], Awaitable[object]]] = {
    "add_credits": lambda store: add(store, 1, "new"),
    "deduct": lambda store: deduct(store, 1, floor=-10),
    "reserve": lambda store: reserve(store, "new", 1),
    "settle": lambda store: settle(store, LEASE, 1),
    "release": lambda store: release(store, LEASE),
    "renew": lambda store: renew(store, LEASE, 1),
    "extend": lambda store: extend(store, LEASE, 1),
    "adjust_credits": lambda store: store.adjust_credits(
        ACCOUNT, 1, key("new"), force=True, conditions=KNOWN, cause=b""
    ),
    "refund": lambda store: store.refund(ACCOUNT, CHARGE, 1, key("new"), expired_to_balance=True, cause=b""),
    "set_plan": lambda store: store.set_plan(
        ACCOUNT, "pro", "", key("new"), conditions=Conditions(terms=Terms("pro")), cause=b""
    ),
    "set_cap": lambda store: store.set_cap(
        ACCOUNT, CapRule("account", "total", 1), key("new"), conditions=KNOWN, cause=b""
    ),
    "remove_cap": lambda store: store.remove_cap(ACCOUNT, "account", "1", key("new"), cause=b""),
    "raise_cap": lambda store: store.raise_cap(ACCOUNT, "account", "1", 1, 2**42, key("new"), cause=b""),
    "clear_cap": lambda store: store.clear_cap(ACCOUNT, "account", "1", key("new"), cause=b""),
    "freeze": lambda store: store.freeze(ACCOUNT, "why", key("new"), cause=b""),
    "create_team": lambda store: store.create_team(ACCOUNT, "a team", "ann", key("new"), cause=b""),
    "set_member": lambda store: store.set_member(ACCOUNT, "ann", "member", key("new"), cause=b""),
    "dry_run": lambda store: reserve(store, "new", 0, dry_run=True),
    "describe": lambda store: store.describe(ACCOUNT, conditions=KNOWN),
    "get_balance": lambda store: store.get_balance(ACCOUNT, conditions=KNOWN),
    "list_leases": lambda store: store.list_leases(ACCOUNT),
    "find_lease": lambda store: store.find_lease(ACCOUNT, LEASE),
    "publish_pricing": lambda store: store.publish_pricing("{}", key("new"), cause=b""),
    "activate_pricing": lambda store: store.activate_pricing(1, cause=b""),
    "read_pricing": lambda store: store.read_pricing(),
}
"""A call of each operation."""

WITHOUT_MARK = {"publish_pricing", "activate_pricing", "sweep_partition"}
"""Operations whose results do not say whether they changed something."""
READS = {"get_balance", "describe", "list_leases", "read_pricing", "read_entry", "find_lease", "kept_value"}
ENTRIES = {
    "add_credits": {"add_credits"},
    "adjust_credits": {"adjust_credits"},
    "refund": {"refund"},
    "deduct": {"deduct"},
    "reserve": {"reserve"},
    "settle": {"settle"},
    "release": {"release"},
    "renew": {"renew"},
    "extend": {"extend"},
    "set_plan": {"set_plan"},
    "set_cap": {"set_cap"},
    "remove_cap": {"remove_cap"},
    "raise_cap": {"raise_cap"},
    "clear_cap": {"clear_cap"},
    "freeze": {"freeze", "unfreeze"},
    "create_team": {"create_team"},
    "set_member": {"set_member"},
    "publish_pricing": {"publish_pricing"},
    "activate_pricing": {"activate_pricing"},
    "sweep_partition": set(),
}
"""The operations of the entries that each operation writes."""
