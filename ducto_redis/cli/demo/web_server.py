"""Runs an application under uvicorn, in a thread of this process, on a free loopback port."""

import socket
import threading
from types import TracebackType

import uvicorn
from starlette.types import ASGIApp

from ducto_redis.errors import ConfigError

_POLL_SECONDS = 0.005
_STOP_SECONDS = 5


class WebServer:
    """Serves while it is entered as a context; leaving it waits until the application has shut down.

    Attributes:
        url: where it serves.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            app, log_config=None, log_level="error", ws="none", timeout_graceful_shutdown=_STOP_SECONDS
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="web server", daemon=True)

    def __enter__(self) -> "WebServer":
        self._thread.start()
        while not self._server.started:
            self._thread.join(_POLL_SECONDS)
            if not self._thread.is_alive():
                raise ConfigError("the demo's web server did not start; see the message above")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()
