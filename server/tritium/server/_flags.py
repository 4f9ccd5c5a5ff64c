"""What a server may be asked for beyond its models: logs, traces, a cache, limits; as Triton's own flags."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from tritium.client import InputError
from tritium.repository import ConfigError, Repository

from ._log import LOG_FORMATS

_MOST_CACHE_MB = 2**20
_MOST_TRACE_RATE = 2**31 - 1
# Seen by the backend processes of Python-based models, where asking Triton would cost a message for each request.
VERBOSE_VARIABLE = "TRITIUM_LOG_VERBOSE"


@dataclass(frozen=True, kw_only=True)
class Features:
    """What a server is asked for; `TritonServer` describes each.

    Raises:
        InputError: a value is none that there is.
    """

    log_format: str = "text"
    log_verbose: bool = False
    otlp_url: str | None = None
    trace_rate: int = 1
    response_cache_mb: int = 0
    rate_limit: bool = False

    def __post_init__(self) -> None:
        if self.log_format not in LOG_FORMATS:
            raise InputError(
                f"The 'log_format' parameter must be one of {', '.join(LOG_FORMATS)}, got {self.log_format!r} instead"
            )
        if self.otlp_url is not None:
            _check_otlp_url(self.otlp_url)
        for name, least, most in (("trace_rate", 1, _MOST_TRACE_RATE), ("response_cache_mb", 0, _MOST_CACHE_MB)):
            value = getattr(self, name)
            if not isinstance(value, int) or not least <= value <= most:
                raise InputError(
                    f"The {name!r} parameter must be a whole number from {least} to {most}, got {value!r} instead"
                )

    def flags(self) -> list[str]:
        """Triton's flags."""
        flags = ["--log-verbose=1"] if self.log_verbose else []
        if self.otlp_url is not None:
            service = os.environ.get("OTEL_SERVICE_NAME") or "tritium"
            settings = [
                "mode=opentelemetry",
                "level=TIMESTAMPS",
                f"rate={self.trace_rate}",
                f"opentelemetry,url={self.otlp_url}",
                f"opentelemetry,resource=service.name={service}",
            ]
            flags += [f"--trace-config={setting}" for setting in settings]
        if self.response_cache_mb:
            flags += [f"--cache-config=local,size={self.response_cache_mb * 2**20}"]
        return flags + (["--rate-limit=execution_count"] if self.rate_limit else [])

    def asked_in_vain(self, repository: Repository, model: str) -> dict[str, str]:
        """What a model's config asks for and this server does not do: the key, and what turns it on."""
        try:
            config = repository.config(model)
        except ConfigError:  # there is none, or Triton has said what is wrong with it
            return {}
        vain = {}
        if config.response_cache.enable and not self.response_cache_mb:
            vain["response_cache"] = "--response-cache-mb, TritonServer(response_cache_mb=…)"
        if any(group.HasField("rate_limiter") for group in config.instance_group) and not self.rate_limit:
            vain["rate_limiter"] = "--rate-limit, TritonServer(rate_limit=True)"
        return vain


def _check_otlp_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        port_is_good = parts.port is None or parts.port > 0
    except ValueError:  # a port that is no number, or half an IPv6 address
        parts, port_is_good = urlsplit(""), False
    path = parts.path.strip("/")
    if (
        parts.scheme not in ("http", "https")
        or not (parts.hostname and path and port_is_good)
        or "@" in parts.netloc
        or not re.fullmatch(r"[!-~]+", url)
    ):
        raise InputError(
            "The 'otlp_url' parameter must be where an OpenTelemetry collector takes traces over HTTP, such as "
            f"http://127.0.0.1:4318/v1/traces, with its path and without a password, got {_masked(url)!r} instead"
        )


def _masked(url: str) -> str:
    return re.sub(r"//[^/]*@", "//***@", url)
