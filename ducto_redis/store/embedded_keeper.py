"""The process that runs the server of a folder for as long as the folder has users; `embedded.py` tells the story.

Run as a script, in the folder, with the standard library only (so that it starts in milliseconds and stays small):

    embedded_keeper.py PROGRAM SOCKET_PATH KEEPER_LOCK

PROGRAM is the Valkey binary and KEEPER_LOCK a locked file descriptor. The script returns 0 as soon as the server
answers, and leaves the keeper behind; it returns 1 if the server ended before that.
"""

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

READY = b"ready"
POLL_SECONDS = 0.01
SERVER_CONFIG = [
    *("--port", "0"),
    *("--unixsocketperm", "700"),
    *("--dir", "."),
    *("--appendonly", "yes"),
    *("--appendfsync", "everysec"),
    *("--save", ""),
    *("--maxmemory-policy", "noeviction"),
]


def open_lock(folder: Path, name: str) -> int:
    """Opens a lock file of the folder, as a file descriptor; closing it frees the lock."""
    return os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def try_lock(lock: int) -> bool:
    """Takes the lock for oneself, unless somebody has it."""
    return _try(lock, fcntl.LOCK_EX)


def try_shared_lock(lock: int) -> bool:
    """Takes the lock together with others, unless somebody has it for himself."""
    return _try(lock, fcntl.LOCK_SH)


def _try(lock: int, kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def answers(socket_path: Path) -> bool:
    """Tell whether a server at the socket is ready for commands; one that still reads its data is not."""
    return ask(socket_path, b"PING\r\n").startswith(b"+PONG")


def ask(socket_path: Path, command: bytes) -> bytes:
    """Return the first bytes of the reply to a command, or none."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        try:
            connection.connect(str(socket_path))
            connection.sendall(command)
            return connection.recv(64)
        except OSError:
            return b""


class Keeper:
    """Runs the server until the folder has no users."""

    def __init__(self, program: str, socket_path: Path) -> None:
        self._command = [program, *SERVER_CONFIG, "--unixsocket", str(socket_path)]
        self._socket_path = socket_path
        self._users_lock = open_lock(Path(), "users")
        self._unused = threading.Event()
        self._server: subprocess.Popen[bytes] | None = None

    def run(self, ready: int | None) -> None:
        """Writes to the pipe `ready` once the server answers; returns when it has stopped for good."""
        threading.Thread(target=self._wait_until_unused, daemon=True).start()
        while not self._unused.is_set():
            self._server = self._start_server()
            if not self._wait_until_it_answers(self._server):
                break
            if ready is not None:
                self._report(ready)
                ready = None
            if self._unused.is_set():  # A server that has only just started ignores the signal that it got then.
                self._server.terminate()
            self._server.wait()

    @staticmethod
    def _report(ready: int) -> None:
        with contextlib.suppress(BrokenPipeError):  # Whoever started this has given up, or died.
            os.write(ready, READY)
        os.close(ready)

    def _wait_until_unused(self) -> None:
        fcntl.flock(self._users_lock, fcntl.LOCK_EX)
        self._unused.set()
        if self._server is not None:
            self._server.terminate()

    def _start_server(self) -> "subprocess.Popen[bytes]":
        lock = open_lock(Path(), "server")
        try:
            # Held by a server whose keeper was killed. It cannot be waited for, so it makes way for one that can.
            while not try_lock(lock):
                ask(self._socket_path, b"SHUTDOWN\r\n")
                time.sleep(POLL_SECONDS)
            self._socket_path.unlink(missing_ok=True)
            return subprocess.Popen(self._command, stdin=subprocess.DEVNULL, pass_fds=[lock])
        finally:
            os.close(lock)

    def _wait_until_it_answers(self, server: "subprocess.Popen[bytes]") -> bool:
        while server.poll() is None:
            if answers(self._socket_path):
                return True
            time.sleep(POLL_SECONDS)
        return False


def main() -> int:
    program, socket_path, keeper_lock = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        os.close(keeper_lock)
        return 0 if os.read(reader, len(READY)) == READY else 1
    os.close(reader)
    os.setsid()
    # The server stays while it has users: they may have something to finish when everybody is told to end.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    Keeper(program, socket_path).run(writer)
    # Before the users' lock, so that whoever gets that one finds no keeper.
    os.close(keeper_lock)
    return 0


if __name__ == "__main__":
    sys.exit(main())
