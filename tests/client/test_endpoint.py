"""URLs."""

from __future__ import annotations

import pytest

from tritium.client import InputError
from tritium.client._endpoint import Endpoint


@pytest.mark.parametrize(
    ("url", "address", "secure"),
    [
        ("http://127.0.0.1:9000", "127.0.0.1:9000", False),
        ("http://localhost", "localhost:8000", False),
        ("http://localhost/", "localhost:8000", False),
        ("https://triton.example", "triton.example:443", True),
        ("grpc://triton", "triton:8001", False),
        ("grpcs://triton", "triton:443", True),
        ("grpcs://triton:1", "triton:1", True),
        ("HTTP://triton:65535", "triton:65535", False),
        ("http://[::1]:9000", "[::1]:9000", False),
        ("grpc://[2001:db8::7]", "[2001:db8::7]:8001", False),
        ("https://proxy.example/serving/a-b/", "proxy.example:443", True),
    ],
)
def test_good_url_gives_address_and_security(url: str, address: str, secure: bool) -> None:
    endpoint = Endpoint.parse(url)
    assert (endpoint.address, endpoint.secure) == (address, secure)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9000", "grpcs://triton:443", "http://[::1]:9000", "http://proxy:80/serving/models"]
)
def test_endpoint_reads_as_its_url(url: str) -> None:
    assert str(Endpoint.parse(url)) == url


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "must start with http://, https://, grpc:// or grpcs://"),
        ("127.0.0.1:8000", "must start with"),
        ("localhost", "must start with"),
        ("ftp://triton", "must start with"),
        ("http://", "must start with"),
        ("http:///v2", "must start with"),
        ("http://triton:0", "must be 1 to 65535, got 0"),
        ("http://triton:65536", "must be 1 to 65535, got 65536"),
        ("http://triton:123456", "and nothing more"),
        ("http://triton:", "and nothing more"),
        ("http://triton:http", "and nothing more"),
        ("http://triton/v2", "must end before /v2"),
        ("http://triton/proxy/v2/", "must end before /v2"),
        ("http://triton/two words", "and nothing more"),
        ("grpc://triton/path", "must have no path for gRPC"),
        ("http://triton?x=1", "and nothing more"),
        ("http://triton#x", "and nothing more"),
        ("http://user@triton", "and nothing more"),
        ("grpc://two words", "and nothing more"),
        ("http://::1:8000", "and nothing more"),
        ("http://[::1", "The 'url' parameter must be"),
    ],
)
def test_bad_url_is_refused(url: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Endpoint.parse(url)


def test_password_in_a_url_is_not_repeated_in_the_error() -> None:
    with pytest.raises(InputError) as caught:
        Endpoint.parse("http://user:s3cr3t@triton")
    assert "s3cr3t" not in str(caught.value)
