"""A real Sentinel set-up: a primary, two replicas, and three sentinels that watch them."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import redis

from tests.servers import START_SECONDS, Server, ServerError

SERVICE = "credits"
SENTINELS = 3
SERVERS = 3
UNHURRIED_MS = 15_000
"""After which a server that does not answer is believed down. Long: nobody is replaced because the machine is busy."""
HASTY_MS = 500
"""The same, for tests in which the primary dies."""
FAILOVER_MS = 3000
"""After which a failover that does not come along is begun anew."""


class SentinelProcess(Server):
    """A sentinel; it is told what to watch once it runs."""

    def __init__(self, folder: Path, password: str = "") -> None:
        super().__init__(Server.valkey(folder).program, folder)
        self.password = password
        self.is_silent = False

    @property
    def listens(self) -> bool:
        """Whether it answers."""
        return self.process is not None and not self.is_silent

    def silence(self) -> None:
        """Makes it stand still: it is there, and answers nothing. Healing ends that."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        self.is_silent = True

    def wake(self) -> None:
        """Lets it go on."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
        self.is_silent = False

    def command(self) -> list[str]:
        file = self.folder / "sentinel.conf"
        if not file.exists():  # it writes what it knows into that file
            lines = [f"port {self.port}", "bind 127.0.0.1", "dir ."]
            if self.password:
                lines += [f'requirepass "{self.password}"', f'sentinel sentinel-pass "{self.password}"']
            file.write_text("\n".join(lines) + "\n")
        return [self.program, str(file), "--sentinel"]

    def ask(self, *command: Any) -> Any:
        """What it answers to one command, as it says it."""
        with redis.Redis(port=self.port, protocol=2, password=self.password or None) as client:
            client.response_callbacks.clear()
            return client.execute_command(*command)

    def told(self, *command: Any) -> list[dict[str, str]]:
        """What it answers, where that is a list of descriptions."""
        described = []
        for fields in self.ask(*command):
            texts = [field.decode() for field in fields]
            described.append(dict(zip(texts[::2], texts[1::2], strict=True)))
        return described


class Sentinels:
    """A primary with two replicas, and three sentinels.

    Args:
        folder: where their folders are made.
        password: of the servers.
        sentinel_password: of the sentinels.
    """

    def __init__(self, folder: Path, *, password: str = "", sentinel_password: str = "") -> None:
        self.password = password
        secret = {"requirepass": password, "primaryauth": password} if password else {}
        self.servers = []
        for number in range(SERVERS):
            place = folder / f"server-{number}"
            place.mkdir()
            self.servers.append(Server.valkey(place, repl_diskless_sync_delay=0, **secret))
        self.sentinels = []
        for number in range(SENTINELS):
            place = folder / f"sentinel-{number}"
            place.mkdir()
            self.sentinels.append(SentinelProcess(place, sentinel_password))

    @property
    def url(self) -> str:
        """The URL of the service."""
        user = f":{quote(self.password, safe='')}@" if self.password else ""
        secret = self.sentinels[0].password
        query = f"?sentinel_password={quote(secret, safe='')}" if secret else ""
        addresses = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{user}{addresses}/{SERVICE}/0{query}"

    def start(self) -> "Sentinels":
        """Starts all of them, and waits until they would replace a primary that is lost."""
        for server in self.servers:
            server.start()
        for sentinel in self.sentinels:
            sentinel.start()
        primary = self.servers[0]
        self._replicate(primary)
        for sentinel in self.sentinels:
            sentinel.ask("SENTINEL", "MONITOR", SERVICE, "127.0.0.1", primary.port, 2)
            if self.password:
                sentinel.ask("SENTINEL", "SET", SERVICE, "auth-pass", self.password)
        self._set_down_after(UNHURRIED_MS)
        self.wait_until_whole()
        return self

    def stop(self) -> None:
        """Stops all of them."""
        for process in [*self.sentinels, *self.servers]:
            process.stop()

    def client(self, server: Server) -> "redis.Redis":
        """A client of one server."""
        return redis.Redis(port=server.port, protocol=2, password=self.password or None)

    def primary(self) -> Server:
        """The server that the sentinels name."""
        port = self._named_by(next(sentinel for sentinel in self.sentinels if sentinel.listens))
        return next(server for server in self.servers if server.port == port)

    def fail_over(self) -> None:
        """Has the sentinels replace a primary that is well, and waits until they have."""
        old = self.primary()
        self.sentinels[0].ask("SENTINEL", "FAILOVER", SERVICE)
        self.wait_until_replaced(old)

    def wait_until_replaced(self, old: Server) -> None:
        """Waits until the sentinels name another primary."""
        self._wait("replace the primary", lambda: self._is_replaced(old))

    @contextlib.contextmanager
    def hasty(self) -> Iterator[None]:
        """A primary that is down is replaced within seconds meanwhile. Afterwards everything is healed."""
        self._set_down_after(HASTY_MS)
        try:
            yield
        finally:
            self.heal()

    def heal(self) -> None:
        """Starts what is down, and waits until all follow the primary that the sentinels name."""
        for sentinel in self.sentinels:
            sentinel.wake()
        for process in [*self.servers, *self.sentinels]:
            if process.process is None:
                process.start()
        self._wait("end the failover", self._have_failed_over)
        self._replicate(self.primary())  # they would do it themselves, after ten seconds
        self.wait_until_whole()
        self._set_down_after(UNHURRIED_MS)

    def wait_until_whole(self) -> None:
        """Waits until every sentinel knows the primary, both replicas and the other sentinels, and none is down."""
        self._wait("become whole", self._is_whole)

    def _replicate(self, primary: Server) -> None:
        for server in self.servers:
            with self.client(server) as client:
                if server is not primary:
                    client.replicaof("127.0.0.1", primary.port)
                elif self._role(server) != "master":
                    client.replicaof("no", "one")

    def _role(self, server: Server) -> str:
        with self.client(server) as client:
            role: bytes = client.execute_command("ROLE")[0]
            return role.decode()

    def _named_by(self, sentinel: SentinelProcess) -> int:
        return int(sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1])

    def _named(self) -> set[int]:
        return {self._named_by(sentinel) for sentinel in self.sentinels if sentinel.listens}

    def _is_whole(self) -> bool:
        for sentinel in self.sentinels:
            (primary,) = sentinel.told("SENTINEL", "MASTERS")
            replicas = sentinel.told("SENTINEL", "REPLICAS", SERVICE)
            others = sentinel.told("SENTINEL", "SENTINELS", SERVICE)
            if primary["flags"] != "master" or any("s_down" in other["flags"] for other in others):
                return False
            if any(replica["flags"] != "slave" for replica in replicas):
                return False
            if len(replicas) != SERVERS - 1 or len(others) != SENTINELS - 1:
                return False
        primary_server = self.primary()
        return all(self._is_in_place(server, primary_server) for server in self.servers)

    def _is_in_place(self, server: Server, primary: Server) -> bool:
        with self.client(server) as client:
            replication: dict[str, Any] = client.info("replication")
        if server is primary:
            online = [replication.get(f"slave{number}", {}).get("state") for number in range(SERVERS - 1)]
            return replication["role"] == "master" and online == ["online"] * (SERVERS - 1)
        return replication.get("master_port") == primary.port and replication["master_link_status"] == "up"

    def _have_failed_over(self) -> bool:
        seen = [sentinel.told("SENTINEL", "MASTERS")[0] for sentinel in self.sentinels]
        ports, flags = ({primary[name] for primary in seen} for name in ("port", "flags"))
        return len(ports) == 1 and flags == {"master"}

    def _is_replaced(self, old: Server) -> bool:
        return old.port not in self._named() and self._role(self.primary()) == "master"

    def _set_down_after(self, milliseconds: int) -> None:
        for sentinel in self.sentinels:
            if sentinel.process is not None:
                sentinel.ask("SENTINEL", "SET", SERVICE, "down-after-milliseconds", milliseconds)
                sentinel.ask("SENTINEL", "SET", SERVICE, "failover-timeout", FAILOVER_MS)

    def _wait(self, what: str, done: Callable[[], bool]) -> None:
        give_up = time.monotonic() + START_SECONDS
        while not done():
            if time.monotonic() > give_up:
                known = [
                    sentinel.told("SENTINEL", *command)
                    for sentinel in self.sentinels
                    for command in (("MASTERS",), ("REPLICAS", SERVICE), ("SENTINELS", SERVICE))
                ]
                raise ServerError(f"the sentinels did not {what} within {START_SECONDS} seconds: {known}")
            time.sleep(0.05)
