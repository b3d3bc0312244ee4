"""Frames of AWS's event stream, written: what ends a stream of Bedrock's."""

from binascii import crc32

_TEXT = b"\x07"


def frame(kind: bytes, payload: bytes) -> bytes:
    """Return an event of this type, with a payload of JSON."""
    headers = b"".join(
        _header(name, value)
        for name, value in (
            (b":event-type", kind),
            (b":content-type", b"application/json"),
            (b":message-type", b"event"),
        )
    )
    # Twelve bytes before the headers, and a checksum of four after the payload.
    prelude = (16 + len(headers) + len(payload)).to_bytes(4, "big") + len(headers).to_bytes(4, "big")
    message = prelude + _checksum(prelude) + headers + payload
    return message + _checksum(message)


def _header(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + _TEXT + len(value).to_bytes(2, "big") + value


def _checksum(data: bytes) -> bytes:
    return crc32(data).to_bytes(4, "big")
