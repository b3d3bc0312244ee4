"""One formula of a document: its text, checked once, calculated often."""

from collections.abc import Set

from ducto_redis.metrics import UsageMetrics
from ducto_redis.money import MICRO
from ducto_redis.pricing.checking import check
from ducto_redis.pricing.compiling import Numerator, compile_exact
from ducto_redis.pricing.grammar import parse
from ducto_redis.pricing.rational import evaluate
from ducto_redis.pricing.usage import value_of


class Formula:
    """A checked formula.

    Attributes:
        text: as it stands in the document.
        path: where it stands in the document.
        tree: what it was read into.
        reads: the names of the measures that it reads.
    """

    def __init__(self, text: str, path: str, own_measures: Set[str] = frozenset()) -> None:
        """Check `text`.

        Raises:
            ExpressionError: where it is not a formula, with path and position.
        """
        self.text = text
        self.path = path
        self.own_measures = frozenset(own_measures)
        self.tree = parse(text, path)
        self.reads = check(self.tree, self.own_measures, path)
        self._compiled = False
        self._numerator: Numerator | None = None
        self._denominator = 1

    def exact(self, usage: UsageMetrics, tool_calls: int) -> tuple[int, int]:
        """Return the value for a checked usage in micro-credits, as numerator and denominator.

        Args:
            usage: what was consumed.
            tool_calls: what the measure `tool_calls` counts here.

        Raises:
            ExpressionError: for a division by zero, with path and position.
        """
        numerator = self._numerator
        if numerator is not None:
            try:
                return numerator(usage, tool_calls), self._denominator
            except ZeroDivisionError:
                pass  # The fractions below fail at the same place, and know where that is.
        elif not self._compiled:
            self._compile()
            return self.exact(usage, tool_calls)
        values = {name: value_of(name, usage, tool_calls) for name in self.reads}
        value = evaluate(self.tree, values, self.path) * MICRO
        return value.numerator, value.denominator

    def _compile(self) -> None:
        # At first use: a document may price a thousand models of which a process sees three.
        lowered = compile_exact(self.tree, self.reads, self.own_measures)
        if lowered is not None:
            # The denominator first: other threads go by the numerator.
            numerator, self._denominator = lowered
            self._numerator = numerator
        self._compiled = True
