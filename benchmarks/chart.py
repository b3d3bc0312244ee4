"""A chart of figures beside their targets, as SVG: one bar for each, readable on light and on dark pages."""

from collections.abc import Iterator, Sequence
from html import escape

from msgspec import Struct

from ducto_redis.benchmark.harness import Figure, Outcome
from ducto_redis.benchmark.report import shown_figure, shown_target

_WIDTH = 880
_BARS_FROM, _BARS_TO = 440, 700
_TARGET_AT = 620
_ROW, _BAR = 36, 12
_HEAD = 34
_STYLE = """
text { font: 13px -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328; }
.head { font-weight: 600; }
.small { font-size: 11px; fill: #59636e; }
.lane { fill: #818b98; fill-opacity: 0.15; }
.met { fill: #1a7f37; }
.missed { fill: #bc4c00; }
.target { stroke: #1f2328; stroke-width: 2; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; }
  .small { fill: #9198a1; }
  .met { fill: #3fb950; }
  .missed { fill: #f0883e; }
  .target { stroke: #f0f6fc; }
}
"""


class Bar(Struct, frozen=True):
    """A figure.

    Attributes:
        work: what is done.
        what: the contender, and its limit.
        value: the figure, as it is shown.
        target: its target, as it is shown.
        is_met: whether it is as it should be.
        more_is_better: whether the bar should reach the line, or end before it.
        length: 1 where the bar reaches the line.
    """

    work: str
    what: str
    value: str
    target: str
    is_met: bool
    more_is_better: bool
    length: float


def bars(outcomes: Sequence[Outcome]) -> Iterator[Bar]:
    """Return every figure that has a target."""
    for outcome in outcomes:
        for figure in outcome.figures:
            target = figure.target
            if target is None:
                continue
            value = outcome.value(figure)
            bound = target.at_most if target.at_least is None else target.at_least
            assert bound is not None
            yield Bar(
                work=outcome.work,
                what=_what(figure),
                value=shown_figure(value, figure, outcome.unit),
                target=shown_target(target, figure, outcome.unit),
                is_met=target.is_met(value),
                more_is_better=target.at_least is not None,
                length=max(0.0, value / bound),
            )


def chart(shown: Sequence[Bar]) -> str:
    """Return the chart as SVG."""
    parts: list[str] = []
    y = 8
    for more_is_better, heading in (
        (True, "More is better: the bar should reach the line"),
        (False, "Less is better: the bar should end before the line"),
    ):
        group = [bar for bar in shown if bar.more_is_better == more_is_better]
        if not group:
            continue
        parts.append(f'<text class="head" x="8" y="{y + 18}">{heading}</text>')
        y += _HEAD
        for bar in group:
            parts.extend(_drawn(bar, y))
            y += _ROW
    title = "Figures beside their targets"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y + 8}" viewBox="0 0 {_WIDTH} {y + 8}"'
        f' role="img" aria-label="{title}">\n<title>{title}</title>\n<style>{_STYLE}</style>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _drawn(bar: Bar, y: int) -> Iterator[str]:
    top = y + 6
    whole = _BARS_TO - _BARS_FROM
    width = min(whole, bar.length * (_TARGET_AT - _BARS_FROM))
    colour = "met" if bar.is_met else "missed"
    yield f'<text x="8" y="{y + 12}">{escape(bar.work)}</text>'
    yield f'<text class="small" x="8" y="{y + 26}">{escape(bar.what)}</text>'
    yield f'<rect class="lane" x="{_BARS_FROM}" y="{top}" width="{whole}" height="{_BAR}" rx="2"/>'
    yield f'<rect class="{colour}" x="{_BARS_FROM}" y="{top}" width="{width:.1f}" height="{_BAR}" rx="2"/>'
    yield f'<line class="target" x1="{_TARGET_AT}" x2="{_TARGET_AT}" y1="{top - 4}" y2="{top + _BAR + 4}"/>'
    yield f'<text x="{_BARS_TO + 10}" y="{y + 12}">{escape(bar.value)}{"" if bar.is_met else ", not met"}</text>'
    yield f'<text class="small" x="{_BARS_TO + 10}" y="{y + 26}">target {escape(bar.target)}</text>'


def _what(figure: Figure) -> str:
    if figure.limit is None:
        return figure.contender
    return f"{figure.contender} {'/' if figure.is_ratio else '-'} {figure.limit}"
