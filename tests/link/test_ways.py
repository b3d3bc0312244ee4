"""Every way to a server that a URL can name: TLS, unix sockets, users with few rights. On real servers."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from ducto_redis import AsyncCreditManager, CreditManager
from ducto_redis.errors import StoreUnavailableError
from tests.servers import Server, free_port, temporary_folder

OPENSSL = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=tests"


async def use(url: str) -> None:
    """Charge over an event loop's link and over that of threads."""
    async with AsyncCreditManager.from_url(url) as manager:
        await manager.add_credits("u1", 10, durability="fast")
        await manager.deduct("u1", 1)
    with CreditManager.from_url(url) as credits:
        credits.deduct("u1", 2)
        assert credits.get_balance("u1").balance == 7


@pytest.fixture
def tls_server(redis_server: Server) -> Iterator[tuple[Server, Path]]:
    """A Redis that also listens for TLS, and the certificate to trust."""
    with temporary_folder() as folder:
        certificate, key = folder / "certificate.pem", folder / "key.pem"
        command = [*OPENSSL.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key)]
        subprocess.run([*command, "-out", str(certificate)], check=True, capture_output=True)
        tls = {"tls_port": free_port(), "tls_cert_file": str(certificate), "tls_key_file": str(key)}
        server = Server(redis_server.program, folder, tls_auth_clients="no", tls_ca_cert_file=str(certificate), **tls)
        server.start()
        try:
            yield server, certificate
        finally:
            server.stop()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl to make a certificate with")
async def test_tls(tls_server: tuple[Server, Path]) -> None:
    """A server whose certificate is trusted is used over TLS; one whose is not, is not."""
    server, certificate = tls_server
    url = f"rediss://127.0.0.1:{server.config['tls-port']}/0"
    await use(f"{url}?ssl_ca_certs={certificate}")
    with pytest.raises(StoreUnavailableError, match="certificate"):
        CreditManager.from_url(url, timeout_seconds=0.3).open()


async def test_unix_socket(start_valkey: Callable[..., Server]) -> None:
    """A server on the same machine is used over its socket."""
    with temporary_folder() as folder:
        start_valkey(unixsocket=str(folder / "socket"))
        await use(f"unix://{folder / 'socket'}")


@pytest.mark.parametrize("commands", [["+@all", "-evalsha"], ["+@all", "-evalsha", "-script"]])
async def test_no_right_to_run_scripts_by_name(start_valkey: Callable[..., Server], commands: list[str]) -> None:
    """A user who may not run scripts by their SHA has them sent whole."""
    server = start_valkey()
    with redis.Redis.from_url(server.url) as client:
        client.acl_setuser("app", enabled=True, passwords=["+a-secret"], keys=["*"], commands=commands)
    await use(f"redis://app:a-secret@127.0.0.1:{server.port}/0")


async def test_connections_have_a_name(start_valkey: Callable[..., Server]) -> None:
    """`CLIENT LIST` says whose connection it is."""
    server = start_valkey()
    async with AsyncCreditManager.from_url(server.url) as manager:
        await manager.get_balance("u1")
        with redis.Redis.from_url(server.url) as client:
            names = {its["name"] for its in client.client_list()}
    assert any(name.startswith("ducto-redis-") for name in names)


async def test_a_password_alone(start_valkey: Callable[..., Server]) -> None:
    """A server that wants a password and no user gets it; a wrong one is told at once, and not repeated."""
    server = start_valkey(requirepass="a-secret")
    await use(f"redis://:a-secret@127.0.0.1:{server.port}/0")
    with pytest.raises(StoreUnavailableError, match="WRONGPASS") as refused:
        CreditManager.from_url(f"redis://:another-secret@127.0.0.1:{server.port}/0").open()
    assert "secret" not in str(refused.value)
