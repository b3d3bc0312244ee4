"""Writes a run into docs/benchmarks.md, between two comments, and the chart beside it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.chart import bars, chart
from benchmarks.peers.notes import notes
from benchmarks.servers import ROOT
from ducto_redis.benchmark.harness import BenchmarkError, Outcome
from ducto_redis.benchmark.report import Row, rows
from ducto_redis.benchmark.run import ROUNDS

PAGE = ROOT / "docs" / "benchmarks.md"
PEERS = "peers"

_TARGETS, _ALL = "targets", "all figures"
_NUMBERS = ("measured", "ratio", "figure", "lowest", "highest", "target")


def check_whole(names: Sequence[str], whole: Sequence[str], rounds: int, scale: float) -> None:
    """Raise BenchmarkError unless the run may stand in the documentation: whole, and in enough rounds."""
    if sorted(names) not in (sorted(whole), [PEERS]):
        raise BenchmarkError(f"--write-docs takes a whole run, or {PEERS} alone: what stands there belongs together")
    if rounds < ROUNDS or scale < 1:
        raise BenchmarkError(f"--write-docs takes a full run: at least {ROUNDS} rounds, and all of the work")


def write_page(outcomes: Sequence[Outcome], document: Mapping[str, Any], page: Path = PAGE) -> None:
    """Write the tables of a run into the page; of a whole run also the chart, beside it."""
    text = page.read_text(encoding="utf-8")
    if {outcome.family for outcome in outcomes} == {PEERS}:
        parts = [_where(document), _table_of_peers(outcomes), "\n".join(notes())]
        text = _between(text, PEERS, "\n\n".join(parts))
    else:
        chart_file = page.with_suffix(".svg")
        chart_file.write_text(chart(list(bars(outcomes))), encoding="utf-8")
        text = _between(
            text, _TARGETS, "\n\n".join([_where(document), _image(chart_file), _table_of_targets(outcomes)])
        )
        text = _between(text, _ALL, _table_of_all(outcomes))
    page.write_text(text, encoding="utf-8")


def _between(text: str, name: str, content: str) -> str:
    start, end = f"<!-- {name}, written by --write-docs -->", f"<!-- end of {name} -->"
    before, found_start, rest = text.partition(start)
    _, found_end, after = rest.partition(end)
    if not (found_start and found_end):
        raise BenchmarkError(f"the page has no place for {name}: {start} ... {end}")
    return f"{before}{start}\n\n{content}\n\n{end}{after}"


def _where(document: Mapping[str, Any]) -> str:
    machine, versions, server = document["machine"], dict(document["versions"]), dict(document["server"])
    python = versions.pop("python")
    synced = f"appendfsync {server.pop('appendfsync')}" if "appendfsync" in server else "its own settings"
    server.pop("appendonly", None)
    name, version = next(iter(server.items()))
    packages = ", ".join(f"{package} {number}" for package, number in versions.items())
    return (
        f"Measured on {document['date'][:10]} with `{document['command']}` ({document['rounds']} rounds):"
        f" {machine['processor']}, {machine['cores']} cores shared by client, server and load, {machine['system']};"
        f" Python {python}; {name.capitalize()} {version}, {synced}; {packages}."
    )


def _image(file: Path) -> str:
    return f"![Each figure beside its target]({file.name})"


def _table_of_targets(outcomes: Sequence[Outcome]) -> str:
    lines = [
        (row.work, _compared(row), row.figure, row.target, row.verdict, _command(row.family))
        for row in rows(outcomes)
        if row.target
    ]
    return _table(("work", "contender", "measured", "target", "", "repeat it with"), lines)


def _table_of_all(outcomes: Sequence[Outcome]) -> str:
    return "\n\n".join(_families(outcomes))


def _families(outcomes: Sequence[Outcome]) -> Iterator[str]:
    by_family: dict[str, list[Row]] = {}
    for row in rows(outcomes):
        by_family.setdefault(row.family, []).append(row)
    headings = ("work", "contender", "measured", "limit", "measured", "figure", "lowest", "highest")
    for family, found in by_family.items():
        yield f"{_command(family)}\n\n" + _table(headings, [row.cells[: len(headings)] for row in found])


def _table_of_peers(outcomes: Sequence[Outcome]) -> str:
    lines = [
        (row.work, row.limit, row.limit_measured, row.contender, row.measured, row.figure, row.lowest, row.highest)
        for row in rows(outcomes)
    ]
    return _table(("work", "peer", "measured", "ducto-redis", "measured", "ratio", "lowest", "highest"), lines)


def _table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    ruler = ["---:" if heading in _NUMBERS else "---" for heading in headings]
    shown: list[Sequence[str]] = [headings, ruler]
    above = ""
    for line in lines:
        shown.append(line if line[0] != above else ("", *line[1:]))
        above = line[0]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in shown)


def _compared(row: Row) -> str:
    if not row.limit:
        return row.contender
    return f"{row.contender} beside {row.limit}"


def _command(family: str) -> str:
    return f"`make bench ARGS={family}`"
