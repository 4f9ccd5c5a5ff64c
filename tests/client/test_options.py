"""What a client can be told: what is refused, how it is shown, and when two of a kind are equal."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tritium.client import ApiKey, AsyncClient, BearerToken, Client, InputError, Limits, Retries, Tls

SECRET = "s3cr3t"
CLIENTS = [Client, AsyncClient]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Retries(), "Retries(attempts=3, backoff_s=0.05, max_backoff_s=1.0, budget=0.2, resend=True)"),
        (
            Retries(attempts=1, backoff_s=1, max_backoff_s=2, budget=0, resend=False),
            "Retries(attempts=1, backoff_s=1, max_backoff_s=2, budget=0, resend=False)",
        ),
        (Limits(), "Limits(max_connections=100, connect_timeout_s=5.0)"),
        (Tls(), "Tls(ca_file=None, cert_file=None, key_file=None)"),
        (Tls(ca_file=__file__), f"Tls(ca_file={__file__!r}, cert_file=None, key_file=None)"),
        (ApiKey(SECRET), "ApiKey('…', header='X-API-Key')"),
        (ApiKey(SECRET, header="K"), "ApiKey('…', header='K')"),
        (BearerToken(SECRET), "BearerToken('…')"),
    ],
)
def test_option_is_shown_as_it_is_written_without_secrets(value: object, shown: str) -> None:
    assert (repr(value), str(value), f"{value}") == (shown, shown, shown)


@pytest.mark.parametrize(
    ("make", "other"),
    [
        (lambda: Retries(attempts=2), Retries()),
        (lambda: Limits(max_connections=2), Limits()),
        (lambda: Tls(ca_file=__file__), Tls()),
        (lambda: ApiKey("a"), ApiKey("b")),
        (lambda: ApiKey("a"), ApiKey("a", header="B")),
        (lambda: BearerToken("a"), BearerToken("b")),
    ],
)
def test_options_are_equal_where_all_they_say_is(make: Callable[[], Any], other: object) -> None:
    assert make() == make()
    assert hash(make()) == hash(make())
    assert make() != other
    assert pickle.loads(pickle.dumps(make())) == copy.copy(make()) == make()


@pytest.mark.parametrize("value", [Retries(), Limits(), Tls(), ApiKey("a"), BearerToken("a")])
def test_options_do_not_change(value: Any) -> None:
    name = dataclasses.fields(value)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, name, None)


@pytest.mark.parametrize("kind", [Retries, Limits, Tls])
def test_settings_are_named(kind: Callable[..., object]) -> None:
    with pytest.raises(TypeError):
        kind(3)


@pytest.mark.parametrize("attempts", [0, -1, 1.5, True, "3", None])
def test_retries_without_any_try_are_refused(attempts: Any) -> None:
    with pytest.raises(InputError, match="The 'attempts' parameter of Retries must be 1 or more, got"):
        Retries(attempts=attempts)


@pytest.mark.parametrize("name", ["backoff_s", "max_backoff_s"])
@pytest.mark.parametrize("pause_s", [0, -1.0, float("nan"), float("inf"), True, "1", None])
def test_pause_that_is_no_time_is_refused(name: str, pause_s: Any) -> None:
    with pytest.raises(InputError, match=f"The '{name}' parameter must be a number of seconds above 0, got"):
        Retries(**{name: pause_s})


@pytest.mark.parametrize("budget", [-0.1, float("nan"), "1", None, True])
def test_budget_that_is_no_share_is_refused(budget: Any) -> None:
    with pytest.raises(InputError, match="The 'budget' parameter of Retries must be 0 or more, got"):
        Retries(budget=budget)


@pytest.mark.parametrize("count", [0, -1, 1.5, True, "3", None])
def test_limit_without_any_connection_is_refused(count: Any) -> None:
    with pytest.raises(InputError, match="The 'max_connections' parameter of Limits must be 1 or more, got"):
        Limits(max_connections=count)


@pytest.mark.parametrize("connect_timeout_s", [0, -1.0, float("nan"), float("inf"), True, "1", None])
def test_time_to_connect_that_is_no_time_is_refused(connect_timeout_s: Any) -> None:
    with pytest.raises(InputError, match="The 'connect_timeout_s' parameter must be a number of seconds above 0, got"):
        Limits(connect_timeout_s=connect_timeout_s)


@pytest.mark.parametrize("name", ["ca_file", "cert_file", "key_file"])
def test_file_that_is_not_there_is_refused(name: str, tmp_path: Path) -> None:
    files: dict[str, Any] = {"cert_file": __file__, name: tmp_path / "absent.pem"}
    with pytest.raises(InputError, match=f"The '{name}' parameter of Tls must be a file, got .*absent.pem"):
        Tls(**files)


def test_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="The 'ca_file' parameter of Tls must be a file"):
        Tls(ca_file=tmp_path)


def test_key_without_its_certificate_is_refused() -> None:
    with pytest.raises(InputError, match="The 'key_file' parameter of Tls needs 'cert_file' beside it"):
        Tls(key_file=__file__)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "grpc://127.0.0.1:9"])
def test_tls_for_a_url_without_it_is_refused(url: str, client: Callable[..., object]) -> None:
    with pytest.raises(InputError, match="The 'tls' parameter needs https:// or grpcs:// URLs"):
        client(url, tls=Tls())


# credentials and headers


@pytest.mark.parametrize("secret", ["", None, 7, b"bytes", "two\r\nlines", "a\0b", "ümlaut"])
@pytest.mark.parametrize("kind", [ApiKey, BearerToken])
@pytest.mark.parametrize("client", CLIENTS)
def test_credentials_that_no_header_can_carry_are_refused_without_showing_them(
    client: Callable[..., object], kind: Callable[[Any], Any], secret: Any
) -> None:
    with pytest.raises(InputError) as caught:
        client("http://127.0.0.1:9", auth=kind(secret))
    assert not secret or str(secret) not in str(caught.value)


@pytest.mark.parametrize("auth", [SECRET, {"Authorization": SECRET}, ("user", SECRET), Tls()])
@pytest.mark.parametrize("client", CLIENTS)
def test_auth_of_another_kind_is_refused_without_showing_it(client: Callable[..., object], auth: Any) -> None:
    with pytest.raises(InputError, match="The 'auth' parameter must be an ApiKey or a BearerToken") as caught:
        client("http://127.0.0.1:9", auth=auth)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\rb", "a\0", "\x7f", "ü", 7, None, b"x"])
@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "grpc://127.0.0.1:9"])
@pytest.mark.parametrize("client", CLIENTS)
def test_header_value_that_is_no_line_of_ascii_is_refused_without_showing_it(
    client: Callable[..., object], url: str, value: Any
) -> None:
    with pytest.raises(InputError) as caught:
        client(url, headers={"X-Team": value})
    assert str(caught.value) == "The value of the header 'X-Team' must be text of printable ASCII characters"


@pytest.mark.parametrize("name", ["", "a b", "a:b", "X-Evil\r\n", "ü", "a\0", 7, b"x-team", ":path"])
@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "grpc://127.0.0.1:9"])
@pytest.mark.parametrize("client", CLIENTS)
def test_header_name_that_is_none_is_refused(client: Callable[..., object], url: str, name: Any) -> None:
    with pytest.raises(InputError, match="A header of the client cannot be called"):
        client(url, headers={name: "a"})


@pytest.mark.parametrize(
    "name",
    [
        "Accept-Encoding",
        "Connection",
        "Content-Encoding",
        "Content-Length",
        "Content-Type",
        "Expect",
        "Host",
        "Inference-Header-Content-Length",
        "TE",
        "Transfer-Encoding",
        "Upgrade",
        "X-Request-ID",
    ],
)
@pytest.mark.parametrize("spelled", [str, str.lower])
def test_header_that_the_protocol_decides_itself_is_refused(spelled: Callable[[str], str], name: str) -> None:
    with pytest.raises(InputError, match="A header of the client cannot be called"):
        Client("http://127.0.0.1:9", headers={spelled(name): "a"})


@pytest.mark.parametrize("name", ["grpc-timeout", "x-data-bin", "x~y"])
@pytest.mark.parametrize("client", CLIENTS)
def test_header_that_grpc_cannot_carry_is_refused(client: Callable[..., object], name: str) -> None:
    with pytest.raises(InputError, match="A header of the client cannot be called"):
        client("grpc://127.0.0.1:9", headers={name: "a"})


def test_credentials_beside_a_header_of_the_same_name_are_refused() -> None:
    with pytest.raises(InputError, match=r"(?i)authorization") as caught:
        Client("http://127.0.0.1:9", headers={"authorization": SECRET}, auth=BearerToken("b"))
    assert SECRET not in str(caught.value)
