"""Bodies of forms: small fields are read, files are only measured, nothing is copied."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from ducto_redis.middleware.api_request import ApiRequest
from ducto_redis.middleware.error_responses import BadRequestError

_MOST_PARTS = 1000
_LONGEST_FIELD = 2**20
_LONGEST_HEAD = 2**14
_BOUNDARY = re.compile(rb';\s*boundary=(?:"([^"]+)"|([^\s;"]+))', re.IGNORECASE)
_NAME = re.compile(rb';\s*name=(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))', re.IGNORECASE)
_FILE = re.compile(rb";\s*filename\*?=", re.IGNORECASE)


class File(NamedTuple):
    """A file in a form.

    Attributes:
        content: its bytes, which are those of the body.
    """

    content: memoryview


class Form(NamedTuple):
    """A form that was sent.

    Attributes:
        fields: its texts by name; of several with a name, the last.
        files: its files by name.
    """

    fields: dict[str, str]
    files: dict[str, list[File]]


def is_form(request: ApiRequest) -> bool:
    """Tell whether a request says that its body is a form with parts."""
    return request.headers.get(b"content-type").lower().startswith(b"multipart/form-data")


def read_form(request: ApiRequest) -> Form:
    """Return the fields and files of a body. Raises BadRequestError."""
    body = request.body
    found = _BOUNDARY.search(request.headers.get(b"content-type"))
    if found is None:
        raise BadRequestError("the Content-Type names no boundary", code="invalid_form")
    form = Form({}, {})
    for head, start, end in _parts(body, found[1] or found[2]):
        disposition = _disposition(head)
        named = _NAME.search(disposition)
        if named is None:
            raise BadRequestError("a part of the form has no name", code="invalid_form")
        name = (named[1] or named[2] or b"").decode(errors="replace")
        if _FILE.search(disposition):
            form.files.setdefault(name, []).append(File(memoryview(body)[start:end]))
        elif end - start > _LONGEST_FIELD:
            raise BadRequestError(f"the field is larger than {_LONGEST_FIELD} bytes", param=name)
        else:
            form.fields[name] = body[start:end].decode(errors="replace")
    return form


def _parts(body: bytes, boundary: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the head of each part, and where in the body its content starts and ends."""
    mark = b"--" + boundary
    if body.startswith(mark):
        at = len(mark)
    elif (at := body.find(b"\r\n" + mark)) >= 0:  # what comes before the first part is ignored
        at += 2 + len(mark)
    else:
        raise BadRequestError("the form has no parts", code="invalid_form")
    for _ in range(_MOST_PARTS):
        if body.startswith(b"--", at):
            return
        head_start = body.find(b"\r\n", at) + 2
        head_end = body.find(b"\r\n\r\n", head_start - 2, head_start + _LONGEST_HEAD)
        end = body.find(b"\r\n" + mark, head_end + 2)
        if head_start < 2 or head_end < 0 or end < 0:
            raise BadRequestError("the form was cut off", code="invalid_form")
        yield body[head_start:head_end], min(head_end + 4, end), end
        at = end + 2 + len(mark)
    raise BadRequestError(f"the form has more than {_MOST_PARTS} parts", code="invalid_form")


def _disposition(head: bytes) -> bytes:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-disposition":
            return value
    return b""
