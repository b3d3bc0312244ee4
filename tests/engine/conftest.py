"""A proxy in front of the session's Valkey, and operations for tests of links."""

from collections.abc import Iterator

import pytest

from tests.engine.proxy import Proxy
from tests.servers import Server


@pytest.fixture
def proxy(valkey_server: Server) -> Iterator[Proxy]:
    """A proxy in front of Valkey."""
    with Proxy(valkey_server.url) as proxy:
        yield proxy
