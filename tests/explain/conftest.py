"""Fixtures of managers, for what they explain."""

from tests.manager.conftest import blocking, manager, other

__all__ = ["blocking", "manager", "other"]
