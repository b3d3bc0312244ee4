"""Anomalies: an hour far above an account's own history."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from ducto_redis.ledger import Ledger
from tests.ledger.lives import NAMESPACE, Life, written


class TestAnomalies:
    """An hour far above an account's own history."""

    @staticmethod
    def history(hours: int, amounts: Sequence[int]) -> Life:
        life = Life(datetime(2026, 5, 1, tzinfo=UTC))
        for hour in range(hours):
            life.wait(3_600_000 - 1)
            amount = amounts[hour % len(amounts)]
            if amount:
                life.deduct("a", amount * 1_000_000)
        return life

    def test_a_steady_account_is_told_when_it_jumps(self, ledger: Ledger) -> None:
        """The usual hours are not told, the jump is, with what is usual."""
        life = self.history(200, (10, 11, 9, 10, 12))
        assert written(ledger, life.raw).anomalies() == []
        life.wait(3_600_000 - 1)
        life.deduct("a", 90_000_000)
        ledger.write(NAMESPACE, 0, life.raw[-1:])
        [found] = ledger.analytics(NAMESPACE).anomalies()
        assert (found.account, found.charged, found.usual) == ("a", Decimal(90), Decimal(10))
        assert found.hour == life.now.replace(minute=0, second=0, microsecond=0)
        assert found.score == pytest.approx(80 / 2.5, abs=0.01)
        assert ledger.analytics(NAMESPACE).anomalies(threshold=40) == []
        assert ledger.analytics(NAMESPACE).anomalies(at_least=91) == []
        assert ledger.analytics(NAMESPACE).anomalies(account="other") == []

    def test_who_works_now_and_then_is_not_told(self, ledger: Ledger) -> None:
        """Where most hours are empty, an hour like the others that are not is usual; one far above them is not."""
        life = self.history(300, (0, 0, 0, 0, 0, 0, 5))
        analytics = written(ledger, life.raw)
        assert analytics.anomalies(start=datetime(2026, 5, 2)) == []
        life.deduct("a", 60_000_000)
        ledger.write(NAMESPACE, 0, life.raw[-1:])
        [found] = analytics.anomalies(start=datetime(2026, 5, 2))
        assert found.usual == Decimal(5)

    def test_a_first_hour_is_not_told(self, ledger: Ledger) -> None:
        """Without a history nothing is unusual."""
        life = self.history(1, (1000,))
        assert written(ledger, life.raw).anomalies() == []

    def test_the_time_that_is_looked_at(self, ledger: Ledger) -> None:
        """Only hours that begin in it are told, and the history before it is as long as it is said to be."""
        life = self.history(100, (10,))
        life.deduct("a", 500_000_000)
        life.wait(3_600_000 * 30)
        life.deduct("a", 1_000_000)
        analytics = written(ledger, life.raw)
        assert analytics.anomalies() == []
        assert len(analytics.anomalies(start=datetime(2026, 5, 1))) == 1
        assert len(analytics.anomalies(start=datetime(2026, 5, 5), end=datetime(2026, 5, 6))) == 1
        assert analytics.anomalies(start=datetime(2026, 5, 6), history_days=1) == []
