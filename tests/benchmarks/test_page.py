"""The chart and the tables that a run writes into the documentation."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.chart import Bar, bars, chart
from benchmarks.page import PAGE, check_whole, write_page
from ducto_redis.benchmark.harness import BenchmarkError, Figure, Outcome, Target

SVG = "{http://www.w3.org/2000/svg}"
DOCUMENT: dict[str, Any] = {
    "date": "2030-01-31T12:00:00+00:00",
    "command": "python -m benchmarks --write-docs",
    "rounds": 5,
    "machine": {"system": "Linux 6", "processor": "A processor", "cores": 2, "load": 0.1},
    "versions": {"python": "3.11.7", "redis": "8.1.0"},
    "server": {"valkey": "9.1.2", "appendonly": "yes", "appendfsync": "everysec"},
}
OUTCOMES = [
    Outcome(
        "throughput",
        "deduct",
        "/s",
        [Figure("manager", "bare <script>", target=Target(at_least=0.8)), Figure("bare <script>", "nothing")],
        {"manager": [900.0], "bare <script>": [1000.0], "nothing": [5000.0]},
    ),
    Outcome("memory", "memory in Redis", "bytes", [Figure("lease", target=Target(at_most=250))], {"lease": [300.0]}),
]


def lengths(shown: Sequence[Bar]) -> list[tuple[float, float]]:
    """Of every bar: where it ends, and where its target stands."""
    root = ElementTree.fromstring(chart(shown))
    ends = [
        float(bar.attrib["x"]) + float(bar.attrib["width"])
        for bar in root.iter(f"{SVG}rect")
        if bar.attrib["class"] in ("met", "missed")
    ]
    return list(zip(ends, (float(line.attrib["x1"]) for line in root.iter(f"{SVG}line")), strict=True))


def test_a_bar_reaches_its_target_or_does_not() -> None:
    """A ratio that is enough ends beyond the line, one that is not before it; where less is better, the other way."""
    enough, too_much = bars(OUTCOMES)
    assert (enough.is_met, enough.more_is_better) == (True, True)
    assert (too_much.is_met, too_much.more_is_better) == (False, False)
    (end, target), (other_end, other_target) = lengths([enough, too_much])
    assert end > target
    assert other_end > other_target
    (end, target), _ = lengths([Bar("a", "b", "0.40", "≥ 0.80", False, True, 0.5), too_much])
    assert end < target


def test_a_chart_stays_within_its_frame() -> None:
    """A figure that is a thousand times its target ends at the edge, and text is escaped."""
    text = chart([Bar("a & b", "<c>", "800", "≥ 0.80", True, True, 1000.0)])
    root = ElementTree.fromstring(text)
    width = float(root.attrib["width"])
    assert all(float(bar.attrib["x"]) + float(bar.attrib["width"]) < width for bar in root.iter(f"{SVG}rect"))
    assert "a & b" in [element.text for element in root.iter(f"{SVG}text")]
    assert "prefers-color-scheme: dark" in text


def test_the_page_has_tables_and_chart(tmp_path: Path) -> None:
    """A whole run fills both places of the page; what stands around them stays, and so does what peers wrote."""
    page = tmp_path / "benchmarks.md"
    page.write_text(PAGE.read_text())
    peers_before = page.read_text().partition("<!-- peers")[2]
    for _ in range(2):  # a second run takes the place of the first
        write_page(OUTCOMES, DOCUMENT, page)
    text = page.read_text()
    assert (
        text.count("| deduct | manager beside bare <script> | 0.90 | ≥ 0.80 | met | `make bench ARGS=throughput` |")
        == 1
    )
    assert text.count("| memory in Redis | lease | 300 bytes | ≤ 250 bytes | not met | `make bench ARGS=memory` |") == 1
    assert text.count("| deduct | manager | 900 /s | bare <script> | 1,000 /s | 0.90 | 0.90 | 0.90 |") == 1
    assert "Measured on 2030-01-31 with `python -m benchmarks --write-docs` (5 rounds): A processor, 2 cores" in text
    assert "Valkey 9.1.2, appendfsync everysec" in text
    assert text.partition("<!-- peers")[2] == peers_before
    assert (tmp_path / "benchmarks.svg").read_text().startswith("<svg ")
    assert re.search(r"!\[[^]]+\]\(benchmarks\.svg\)", text)


def test_a_page_without_places_is_refused(tmp_path: Path) -> None:
    """Where the comments are gone, nothing is written over."""
    page = tmp_path / "benchmarks.md"
    page.write_text("# Benchmarks\n")
    with pytest.raises(BenchmarkError, match="no place for targets"):
        write_page(OUTCOMES, DOCUMENT, page)
    assert page.read_text() == "# Benchmarks\n"


def test_only_whole_runs_are_written_down() -> None:
    """A family alone, too few rounds, or a part of the work do not belong into the documentation."""
    whole = ["pricing", "throughput"]
    check_whole(["throughput", "pricing"], whole, 5, 1.0)
    check_whole(["peers"], whole, 9, 1.0)
    for names, rounds, scale in ((["pricing"], 5, 1.0), (whole, 4, 1.0), (whole, 5, 0.5), ([*whole, "peers"], 5, 1.0)):
        with pytest.raises(BenchmarkError, match="--write-docs takes"):
            check_whole(names, whole, rounds, scale)
