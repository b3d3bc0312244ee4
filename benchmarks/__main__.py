"""`python -m benchmarks`: measure, print one table, write one JSON."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

from redis.exceptions import RedisError

from benchmarks.analytics import analytics
from benchmarks.ledger import ledger
from benchmarks.middleware import middleware
from benchmarks.page import PAGE, PEERS, check_whole, write_page
from benchmarks.peers import peers
from benchmarks.peers.notes import notes
from benchmarks.servers import postgres, valkey, workshop
from benchmarks.setting import Setting
from ducto_redis.benchmark import report, run
from ducto_redis.benchmark.harness import BenchmarkError, Family
from ducto_redis.benchmark.run import QUICK_ROUNDS, QUICK_SCALE, ROUNDS, SEED, outcomes_of, tidy_when_terminated
from ducto_redis.benchmark.server import check_argument
from ducto_redis.benchmark.soak import PERIOD_HEADINGS, period_line, soak
from ducto_redis.errors import CreditError
from tests.servers import ServerError

FAMILIES: dict[str, Family[Setting]] = {
    **run.FAMILIES,
    "ledger": ledger,
    "middleware": middleware,
    "analytics": analytics,
    PEERS: peers,
}
ON_REQUEST = ("analytics", PEERS)
"""Families that take minutes to set up, or need more packages."""
WITH_POSTGRES = {"ledger", "analytics", PEERS}
SOAK = "soak"
SOAK_MINUTES = 10.0


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for. Returns the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(given)
    command = " ".join(["python -m benchmarks", *_shown(given)])
    try:
        if options.redis_url is not None:
            check_argument(options.redis_url)
        with tidy_when_terminated():
            if SOAK in options.names:
                return _soak(options)
            _run(options, command)
    except (BenchmarkError, CreditError, RedisError, ServerError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    by_default = f"all but {' and '.join(ON_REQUEST)} by default; or {SOAK} alone, the same load for a long time"
    add("names", nargs="*", type=_family, metavar="name", help=f"{', '.join(FAMILIES)}; {by_default}")
    add("--json", type=Path, metavar="FILE", help="write the run, with every sample, to FILE")
    add("--repeat", type=_positive, metavar="N", help=f"rounds, of which figures are the medians; {ROUNDS} by default")
    add("--quick", action="store_true", help="one short round, to see that it works")
    add("--scale", type=_share, metavar="SHARE", help="the share of the full work that is done, such as 0.1")
    add("--redis-url", metavar="URL", help="a server of your own; what is written there is deleted afterwards")
    add("--write-docs", action="store_true", help=f"write tables and chart into {PAGE.name}; a whole run, or peers")
    add("--minutes", type=_minutes, default=SOAK_MINUTES, help=f"how long {SOAK} takes; {SOAK_MINUTES:g} by default")
    return parser


def _run(options: argparse.Namespace, command: str) -> None:
    began = monotonic()
    names = options.names or [name for name in FAMILIES if name not in ON_REQUEST]
    rounds = options.repeat or (QUICK_ROUNDS if options.quick else ROUNDS)
    scale = options.scale or (QUICK_SCALE if options.quick else 1.0)
    if options.write_docs:
        check_whole(names, [name for name in FAMILIES if name not in ON_REQUEST], rounds, scale)
    with ExitStack() as stack:
        folder = stack.enter_context(workshop())
        url = stack.enter_context(valkey(folder)) if options.redis_url is None else options.redis_url
        database = stack.enter_context(postgres()) if WITH_POSTGRES & set(names) else None
        setting = Setting(url, scale, SEED, database, folder)
        outcomes = outcomes_of(FAMILIES, names, setting, rounds)
        report.table(outcomes)
        if verdict := report.verdict(outcomes):
            print(verdict)
        if PEERS in names:
            print(*notes(), sep="\n")
        document = report.document(outcomes, setting, command=command, rounds=rounds, seconds=monotonic() - began)
        if options.json is not None:
            report.write_json(options.json, document)
        if options.write_docs:
            write_page(outcomes, document)


def _soak(options: argparse.Namespace) -> int:
    if options.names != [SOAK]:
        raise BenchmarkError(f"{SOAK} runs alone")
    with ExitStack() as stack:
        folder = stack.enter_context(workshop())
        url = stack.enter_context(valkey(folder)) if options.redis_url is None else options.redis_url
        print(PERIOD_HEADINGS)
        result = soak(url, folder, minutes=options.minutes, tell=lambda period: print(period_line(period), flush=True))
        print("\n".join(result.lines()))
        if options.json is not None:
            report.write_json(options.json, result.document())
    return 0 if result.ok else 1


def _shown(arguments: Sequence[str]) -> Iterator[str]:
    """Return the command line for others to repeat: without this machine's server and files."""
    waiting = iter(arguments)
    for argument in waiting:
        name, separator, _ = argument.partition("=")
        if name not in ("--redis-url", "--json"):
            yield argument
            continue
        if not separator:
            next(waiting, None)
        if name == "--redis-url":
            yield "--redis-url ..."


def _family(text: str) -> str:
    if text not in FAMILIES and text != SOAK:
        raise argparse.ArgumentTypeError(f"one of {', '.join(FAMILIES)} and {SOAK}, not {text}")
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


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0 < minutes <= 7 * 24 * 60:
        raise argparse.ArgumentTypeError(f"minutes, at most a week of them, not {text}")
    return minutes


if __name__ == "__main__":
    sys.exit(main())
