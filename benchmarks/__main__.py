"""`python -m benchmarks`: measure, print one table, write one JSON."""

import argparse
import random
import sys
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

from redis.exceptions import RedisError

from benchmarks import report
from benchmarks.analytics import analytics
from benchmarks.harness import BenchmarkError, Family, Outcome, run
from benchmarks.ledger import ledger
from benchmarks.middleware import middleware
from benchmarks.operations import latency, throughput
from benchmarks.pricing import pricing
from benchmarks.servers import postgres, valkey, workshop
from benchmarks.setting import Setting
from ducto_redis.engine.connecting import check_url
from ducto_redis.errors import CreditError
from tests.servers import ServerError

FAMILIES: dict[str, Family] = {
    "pricing": pricing,
    "throughput": throughput,
    "latency": latency,
    "ledger": ledger,
    "middleware": middleware,
    "analytics": analytics,
}
ON_REQUEST = ("analytics",)
"""Families that take minutes to set up."""
SEED = 20260101
ROUNDS = 5
QUICK_ROUNDS = 1
QUICK_SCALE = 0.1


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for. Returns the exit status."""
    options = _parser().parse_args(arguments)
    rounds = options.repeat or (QUICK_ROUNDS if options.quick else ROUNDS)
    scale = options.scale or (QUICK_SCALE if options.quick else 1.0)
    try:
        _run(
            options.names or [name for name in FAMILIES if name not in ON_REQUEST],
            rounds,
            scale,
            options.redis_url,
            options.json,
        )
    except (BenchmarkError, CreditError, RedisError, ServerError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("names", nargs="*", type=_family, metavar="name", help=f"{', '.join(FAMILIES)}; all but analytics by default")
    add("--json", type=Path, metavar="FILE", help="write the run, with every sample, to FILE")
    add("--repeat", type=_positive, metavar="N", help=f"rounds, of which figures are the medians; {ROUNDS} by default")
    add("--quick", action="store_true", help="one short round, to see that it works")
    add("--scale", type=_share, metavar="SHARE", help="the share of the full work that is done, such as 0.1")
    add("--redis-url", metavar="URL", help="a server of your own; what is written there is deleted afterwards")
    return parser


def _run(names: list[str], rounds: int, scale: float, redis_url: str | None, json_file: Path | None) -> None:
    began = monotonic()
    with ExitStack() as stack:
        folder = stack.enter_context(workshop())
        url = stack.enter_context(valkey(folder)) if redis_url is None else check_url(redis_url)
        database = stack.enter_context(postgres()) if {"ledger", "analytics"} & set(names) else None
        setting = Setting(url, database, folder, scale, SEED)
        outcomes: list[Outcome] = []
        order = random.Random(SEED)
        for name in names:
            for comparison in FAMILIES[name](setting):
                _progress(f"{name}: {comparison.work}")
                outcomes.append(run(comparison, family=name, rounds=rounds, order=order))
        _progress("")
        report.table(outcomes)
        if json_file is not None:
            report.write_json(json_file, report.document(outcomes, setting, rounds=rounds, seconds=monotonic() - began))


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _family(text: str) -> str:
    if text not in FAMILIES:
        raise argparse.ArgumentTypeError(f"one of {', '.join(FAMILIES)}, not {text}")
    return text


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"a number from 1, not {text}")
    return number


def _share(text: str) -> float:
    share = float(text)
    if not 0 < share <= 10:
        raise argparse.ArgumentTypeError(f"a share above 0 and at most 10, not {text}")
    return share


if __name__ == "__main__":
    sys.exit(main())
