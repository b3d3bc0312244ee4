"""Server-sent events, read as they go by."""

from typing import NamedTuple

_BOM = b"\xef\xbb\xbf"
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")


class ServerSentEvent(NamedTuple):
    """One event: its name (empty where the stream gives none) and its data, still encoded in UTF-8."""

    name: bytes
    data: bytes


class ServerSentEventParser:
    """A parser that cuts a stream of bytes into events, wherever the bytes were split.

    Lines end with LF, CR or CRLF. It works on bytes: no line break lies inside a UTF-8 sequence, so a character that
    was cut in the middle is whole again in its event.

    Args:
        max_event_bytes: the size from which an event is left out, so that a stream without line breaks cannot fill
            the memory. `skipped_bytes` counts what was left out.
    """

    def __init__(self, max_event_bytes: int = 16 * 2**20) -> None:
        self.skipped_bytes = 0
        self._max_event_bytes = max_event_bytes
        self._at_start = True
        self._after_cr = False
        self._line: list[bytes] = []
        self._line_bytes = 0
        self._long_line = b""
        self._name = b""
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._skipping = False

    @property
    def between_events(self) -> bool:
        """True where the bytes so far end between two events."""
        return not (self._line or self._data or self._name or self._after_cr or self._at_start or self._skipping)

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Take the next bytes; return the events that they complete."""
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk[:1] == b"\n":
                chunk = chunk[1:]
        if b"\n" not in chunk and b"\r" not in chunk:
            self._keep(chunk)
            return []
        self._after_cr = chunk.endswith(b"\r")
        if self._line:
            chunk = b"".join((*self._line, chunk))
            self._line.clear()
        lines = chunk.splitlines()
        rest = b"" if chunk.endswith((b"\n", b"\r")) else lines.pop()
        self._line_bytes = 0
        self._long_line = b""
        events: list[ServerSentEvent] = []
        for line in lines:
            self._take_line(line, events)
        self._keep(rest)
        return events

    def finish(self) -> list[ServerSentEvent]:
        """End the stream: return the event that no empty line completed, if there is one."""
        events: list[ServerSentEvent] = []
        if self._line:
            line = b"".join(self._line)
            self._line.clear()
            self._take_line(line, events)
        self._take_line(b"", events)
        return events

    def _keep(self, part: bytes) -> None:
        if not part:
            return
        self._line_bytes += len(part)
        if self._line_bytes + self._data_bytes <= self._max_event_bytes:
            self._line.append(part)
            return
        self._skip(len(part) + sum(map(len, self._line)) - len(self._long_line))
        # The line goes on, but as a comment: the rest of it must not be read as a field.
        self._long_line = b":"
        self._line = [self._long_line]

    def _skip(self, size: int) -> None:
        self.skipped_bytes += size + self._data_bytes
        self._skipping = True
        self._data.clear()
        self._data_bytes = 0

    def _take_line(self, line: bytes, events: list[ServerSentEvent]) -> None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        if not line:
            if self._data and not self._skipping:
                events.append(ServerSentEvent(self._name, b"\n".join(self._data)))
            self._name = b""
            self._data.clear()
            self._data_bytes = 0
            self._skipping = False
            return
        field, _, value = line.partition(b":")
        value = value[1:] if value[:1] == b" " else value
        if field == b"data":
            if self._skipping or self._data_bytes + len(value) > self._max_event_bytes:
                self._skip(len(value))
            else:
                self._data.append(value)
                self._data_bytes += len(value)
        elif field == b"event":
            self._name = value


def as_sent(event: ServerSentEvent) -> bytes:
    """Return an event as a stream sends it."""
    data = event.data
    if b"\r" in data:  # it ends a line here, which it may not in data from elsewhere
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    name = b"event: " + event.name + b"\n" if event.name else b""
    return name + b"data: " + data.replace(b"\n", b"\ndata: ") + b"\n\n"


def looks_like_events(start: bytes) -> bool | None:
    """Tell whether a body with this start is a stream of events, by its bytes alone; None where they are too few."""
    if start.startswith((b"{", b"[")):
        return False
    if _BOM.startswith(start):
        return None
    line = start.removeprefix(_BOM).lstrip(b"\r\n")
    if line.startswith(_FIELDS):
        return True
    return None if any(field.startswith(line) for field in _FIELDS) else False
