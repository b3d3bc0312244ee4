"""Content-Encoding, undone for reading only: the client gets the bytes that the application encoded."""

import zlib
from typing import Protocol

# Enough for zlib to tell gzip from zlib by the header.
_GZIP_OR_ZLIB = 47
_RAW_DEFLATE = -15
# The bytes that one chunk may grow to: a few compressed bytes can become gigabytes.
_LARGEST_CHUNK = 32 * 2**20


class UndecodableError(ValueError):
    """The error of an unknown encoding, or of bytes that do not follow theirs."""


class Decoder(Protocol):
    """A decoder that undoes an encoding piece by piece."""

    def decode(self, chunk: bytes) -> bytes:
        """Return what can be read now. Raises UndecodableError."""
        ...


class _Identity:
    def decode(self, chunk: bytes) -> bytes:
        return chunk


_IDENTITY = _Identity()


class _Unknown:
    def decode(self, chunk: bytes) -> bytes:
        raise UndecodableError("the response's Content-Encoding is not gzip or deflate")


class _Zlib:
    def __init__(self) -> None:
        self._stream = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._start: bytes | None = b""

    def decode(self, chunk: bytes) -> bytes:
        text = b""
        while chunk:
            try:
                text += self._inflate(chunk)
            except zlib.error as error:
                raise UndecodableError(f"the response is not gzip or deflate: {error}") from None
            if self._stream.unconsumed_tail:
                raise UndecodableError(f"a chunk of the response becomes larger than {_LARGEST_CHUNK} bytes")
            chunk = self._stream.unused_data
            if chunk:  # gzip allows several members, one after the other
                self._stream = zlib.decompressobj(_GZIP_OR_ZLIB)
        return text

    def _inflate(self, chunk: bytes) -> bytes:
        if self._start is None:
            return self._stream.decompress(chunk, _LARGEST_CHUNK)
        start = self._start + chunk
        try:
            text = self._stream.decompress(chunk, _LARGEST_CHUNK)
        except zlib.error:  # some servers mean deflate without zlib's header
            self._stream = zlib.decompressobj(_RAW_DEFLATE)
            text = self._stream.decompress(start, _LARGEST_CHUNK)
            self._start = None
        else:
            self._start = None if text else start
        return text


def is_identity(content_encoding: bytes) -> bool:
    """Tell whether a Content-Encoding header's value, empty for none, leaves the bytes as they are."""
    return not content_encoding or content_encoding.strip().lower() in (b"", b"identity")


def decoder_for(content_encoding: bytes) -> Decoder:
    """Return the decoder for a Content-Encoding header's value, empty for none."""
    if is_identity(content_encoding):
        return _IDENTITY
    encoding = content_encoding.strip().lower()
    if encoding in (b"gzip", b"x-gzip", b"deflate"):
        return _Zlib()
    return _Unknown()
