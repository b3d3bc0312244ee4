"""Forms: fields are read, files measured, nonsense refused."""

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ducto_redis.middleware import BadRequestError
from ducto_redis.middleware.api_request import ApiRequest, Headers
from ducto_redis.middleware.recognisers.multipart import Form, is_form, read_form


def asked(body: bytes, content_type: bytes) -> ApiRequest:
    return ApiRequest(headers=Headers([(b"content-type", content_type)]), body=body)


def sent(fields: dict[str, str], files: list[tuple[str, bytes]]) -> ApiRequest:
    """A form as a real client sends it."""
    parts = [(name, (f"{name}.bin", content)) for name, content in files]
    request = httpx.Request("POST", "http://app", data=fields, files=parts)
    return asked(request.read(), request.headers["content-type"].encode())


def read(body: bytes, boundary: str = "X") -> Form:
    return read_form(asked(body, f"multipart/form-data; boundary={boundary}".encode()))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(st.sampled_from(["model", "n", "prompt", "ünï", "a[]"]), st.text(), max_size=4),
    st.lists(st.tuples(st.sampled_from(["image[]", "mask"]), st.binary(max_size=50)), min_size=1, max_size=4),
)
def test_as_clients_send_it(fields: dict[str, str], files: list[tuple[str, bytes]]) -> None:
    """What a real client puts into a form comes out of it."""
    request = sent(fields, files)
    assert is_form(request)
    form = read_form(request)
    assert form.fields == fields
    for name in ("image[]", "mask"):
        assert [bytes(file.content) for file in form.files.get(name, [])] == [
            content for given_name, content in files if given_name == name
        ]


def test_odd_but_right() -> None:
    """Text before the first part, quotes, other headers, a body without a last line break, and an empty part."""
    form = read(
        b'ignored\r\n--X\r\ncontent-DISPOSITION: form-data; x="a; b"; name=model\r\n\r\nm\r\n'
        b'--X\r\nContent-Type: text/plain\r\nContent-Disposition: form-data; name="n"\r\n\r\n2\r\n'
        b'--X\r\nContent-Disposition: form-data; name="e"\r\n\r\n\r\n--X--'
    )
    assert form == Form({"model": "m", "n": "2", "e": ""}, {})
    assert read(b"--X--\r\n") == Form({}, {})


def test_a_file_may_contain_what_looks_like_a_boundary() -> None:
    """Only a whole boundary after a line break ends a part."""
    form = read(b'--X\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\na--X b\r\n-X\r\n--X--')
    assert bytes(form.files["f"][0].content) == b"a--X b\r\n-X"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"model=m",
        b"--X",
        b"--X\r\n",
        b'--X\r\nContent-Disposition: form-data; name="model"',
        b'--X\r\nContent-Disposition: form-data; name="model"\r\n\r\nm',
        b"--X\r\nContent-Disposition: form-data\r\n\r\nm\r\n--X--",
        b"--X\r\nContent-Type: text/plain\r\n\r\nm\r\n--X--",
        b'--X\r\nContent-Disposition: form-data; name="model"\r\n\r\n' + b"m" * (2**20 + 1) + b"\r\n--X--",
        b'--X\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' * 1100 + b"--X--",
        b'--X\r\nContent-Disposition: form-data; name="a"\r\n' + b"y" * 2**15 + b"\r\n\r\n1\r\n--X--",
    ],
)
def test_nonsense(body: bytes) -> None:
    """A form that was cut, has no names, or is larger than any should be, is refused."""
    with pytest.raises(BadRequestError):
        read(body)


def test_without_a_boundary() -> None:
    """A form must say where its parts end."""
    for content_type in (b"multipart/form-data", b"multipart/form-data; boundary="):
        with pytest.raises(BadRequestError, match="boundary"):
            read_form(asked(b"--X--", content_type))
    assert not is_form(asked(b"", b"application/json"))
    assert not is_form(ApiRequest())


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_bytes(data: st.DataObject) -> None:
    """Whatever comes, a form is read or refused, and never more is found in it than was sent."""
    pieces = (b"--X", b"\r\n", b"--", b"Content-Disposition: form-data; name=", b"a", b"; filename=f", b":", b"\xff")
    body = b"".join(data.draw(st.lists(st.sampled_from(pieces), max_size=30)))
    try:
        form = read(body)
    except BadRequestError:
        return
    files = [file for files in form.files.values() for file in files]
    assert sum(len(file.content) for file in files) <= len(body)
