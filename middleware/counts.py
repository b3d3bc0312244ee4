"""Counts of the middleware, for metrics."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from decimal import Decimal

from msgspec import Struct, field

_SHARES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


class HoldCounts(Struct):
    """The accuracy of holds: the part of them that was used.

    Attributes:
        held: credits that were held for answers that have been charged, together.
        used: credits that these answers cost.
        shares_added: the shares of their holds that they cost, added up.
        shares: how many of them used at most a share of their hold: 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1, or more.
    """

    held: Decimal = Decimal(0)
    used: Decimal = Decimal(0)
    shares_added: float = 0.0
    shares: list[int] = field(default_factory=lambda: [0] * (len(_SHARES) + 1))

    def add(self, held: Decimal, used: Decimal) -> None:
        """Count an answer."""
        self.held += held
        self.used += used
        share = float(used / held) if held else 0.0
        self.shares[bisect_left(_SHARES, share)] += 1
        self.shares_added += share


class MeteringCounts(Struct):
    """Counters of one process, which only grow.

    Make one, give it to the middleware, and read it where your metrics are collected:

        counts = MeteringCounts()
        app.add_middleware(MeteringMiddleware, manager=manager, account=payer, counts=counts)

    Attributes:
        unknown_routes: requests under a metered prefix that no recogniser knows, by method and path. Ids in paths are
            `*`; from the 1,000th path on all further ones count as `*`.
        drained: answers that ran to their end although their client had left.
        stopped: streams that were ended because the account could pay no more.
        clamped: requests whose limit on output was lowered to what the account could pay.
        holds: how much of what was held was used.
    """

    unknown_routes: dict[str, int] = field(default_factory=dict)
    drained: int = 0
    stopped: int = 0
    clamped: int = 0
    holds: HoldCounts = field(default_factory=HoldCounts)

    def as_prometheus(self) -> str:
        """Return all of them in Prometheus' text format, for an application that serves its metrics."""
        return "".join(self._lines())

    def _lines(self) -> Iterator[str]:
        for name, what, value in (
            ("drained", "Answers that ran to their end although their client had left.", self.drained),
            ("stopped", "Streams that were ended because the account could pay no more.", self.stopped),
            ("clamped", "Requests that were lowered to what the account could pay.", self.clamped),
        ):
            yield from _metric(f"ducto_metering_{name}_total", "counter", what, {"": value})
        unknown = {f'{{route="{_escaped(route)}"}}': count for route, count in self.unknown_routes.items()}
        yield from _metric(
            "ducto_metering_unknown_routes_total", "counter", "Requests that no recogniser knows, by route.", unknown
        )
        seen = 0
        shares: dict[str, int | float] = {}
        for share, count in zip((*map(str, _SHARES), "+Inf"), self.holds.shares, strict=True):
            seen += count
            shares[f'_bucket{{le="{share}"}}'] = seen
        yield from _metric(
            "ducto_hold_used_share",
            "histogram",
            "Share of its hold that an answer cost.",
            {**shares, "_sum": self.holds.shares_added, "_count": seen},
        )
        for name, what, credits in (
            ("held", "Credits that were held for answers that have been charged.", self.holds.held),
            ("used", "Credits that these answers cost.", self.holds.used),
        ):
            yield from _metric(f"ducto_hold_{name}_credits_total", "counter", what, {"": float(credits)})


def _metric(name: str, kind: str, what: str, values: Mapping[str, int | float]) -> Iterator[str]:
    yield f"# HELP {name} {what}\n# TYPE {name} {kind}\n"
    for labels, value in values.items():
        yield f"{name}{labels} {value}\n"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
