"""Content-Encoding is undone for reading, however the bytes were split."""

import gzip
import zlib

import pytest

from ducto_redis.middleware.decoding import UndecodableError, decoder_for

TEXT = b'{"usage": {"prompt_tokens": 1}}' * 50


def raw_deflate(text: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(text) + compressor.flush()


@pytest.mark.parametrize(
    ("encoding", "encoded"),
    [
        ("", TEXT),
        ("identity", TEXT),
        ("gzip", gzip.compress(TEXT, mtime=0)),
        ("GZIP", gzip.compress(TEXT, mtime=0)),
        ("x-gzip", gzip.compress(TEXT[:100], mtime=0) + gzip.compress(TEXT[100:], mtime=0)),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", raw_deflate(TEXT)),
    ],
)
@pytest.mark.parametrize("step", [1, 13, 100_000])
def test_known_encodings_are_undone(encoding: str, encoded: bytes, step: int) -> None:
    """gzip (of several members too), deflate with and without zlib's header, and no encoding are read."""
    decoder = decoder_for(encoding.encode())
    assert b"".join(decoder.decode(encoded[i : i + step]) for i in range(0, len(encoded), step)) == TEXT


def test_what_cannot_be_read_is_an_error() -> None:
    """An unknown encoding, bytes that follow none, and a chunk that grows without bound are errors."""
    with pytest.raises(UndecodableError):
        decoder_for(b"br").decode(b"x")
    with pytest.raises(UndecodableError):
        decoder_for(b"gzip").decode(b"hello, this is no gzip")
    with pytest.raises(UndecodableError, match="larger"):
        decoder_for(b"gzip").decode(gzip.compress(bytes(40 * 2**20)))
