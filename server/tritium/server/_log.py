"""Triton's log: one file within bounds, as Triton writes it or with a JSON object in each line."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from logging.handlers import RotatingFileHandler
from pathlib import Path

LOG_FORMATS = ("text", "json")
_LOG_BYTES = 8 * 1024 * 1024
_LEVELS = {"I": "INFO", "W": "WARNING", "E": "ERROR", "F": "FATAL"}
# As in `I1128 01:50:23.986701 11650 http_server.cc:4599] "…"`, in UTC; there is no year.
_HEAD = re.compile(r"([IWEF])(\d{4} \d\d:\d\d:\d\d\.\d{6}) \d+ ([^\s\]]+)\] ?")
_REQUEST_ID = re.compile(r"\[request id: (?!<id_unknown>)(.+?)\]")


class ServerLog:
    """A file that Triton's output and the supervisor's notes go to, from any thread; it is rotated at 8 MiB.

    Args:
        path: the file. Its folder need not be there before the first line is.
        log_format: ``text`` for lines as they come, ``json`` for a JSON object in each.
    """

    def __init__(self, path: Path, log_format: str = "text") -> None:
        self.path = path
        self._json = log_format == "json"
        self._file = RotatingFileHandler(path, maxBytes=_LOG_BYTES, backupCount=1, delay=True, encoding="utf-8")

    def write(self, line: str) -> None:
        """Take down a line that Triton, or something that it runs, has written."""
        for text in json_lines(line, datetime.now(UTC)) if self._json else (line,):
            self._file.handle(logging.makeLogRecord({"msg": text}))

    def note(self, message: str, level: str = "INFO") -> str:
        """Take down what is ours to say, if the server has its folder.

        Returns:
            It, for people to see or for a collector of logs: the message, or a JSON object with it.
        """
        now = datetime.now(UTC)
        as_json = _json(now, level, "supervisor", message)
        if self.path.parent.is_dir():
            head = f"{level[0]}{now:%m%d %H:%M:%S.%f} {os.getpid()} supervisor:0]"
            line = as_json if self._json else f"{head} {json.dumps(message, ensure_ascii=False)}"
            self._file.handle(logging.makeLogRecord({"msg": line}))
        return as_json if self._json else message

    def close(self) -> None:
        """Close the file; a later line opens it again."""
        self._file.close()


def json_lines(line: str, now: datetime) -> Iterator[str]:
    """A line of output as JSON objects: none if it is empty, two if Triton's own begins within somebody's print.

    Each has ``time`` (UTC, ISO 8601), ``level``, ``message``, and, where Triton's line has them, ``source`` (file and
    line) and ``request_id``.

    Args:
        line: the line, without its end.
        now: when it came; that is the time of what has none, and the year of what Triton says.
    """
    head = _HEAD.search(line)
    printed = line[: head.start()] if head else line
    if printed.strip():
        yield _json(now, "INFO", None, printed)
    if head and (message := _unquoted(line[head.end() :])):
        yield _json(_time(head[2], now), _LEVELS[head[1]], head[3].removesuffix(":0"), message)


def is_tritons(line: str) -> bool:
    """Whether Triton's own logger wrote a line."""
    return _HEAD.match(line) is not None


def load_failures(log: Sequence[str]) -> dict[str, str]:
    """Which models did not load, and why, by Triton's own log lines; a model's first reason counts."""
    patterns = (
        r"failed to load '(?P<model>[^']+)' version \d+: (?P<reason>.*)",
        r"Poll failed for model directory '(?P<model>[^']+)': (?P<reason>.*)",
        r"failed to poll model '(?P<model>[^']+)'.*?: (?P<reason>.*)",
    )
    reasons: dict[str, str] = {}
    for line in log:
        for pattern in patterns:
            if line.startswith("E") and (match := re.search(pattern, line)):
                reason = match["reason"].removesuffix('"').replace('\\"', '"').replace("\\n", "\n")
                # Behind the reason a Python backend puts the place in its source.
                reasons.setdefault(match["model"], reason.split("\n\nAt:")[0].strip())
    return reasons


def _json(time: datetime, level: str, source: str | None, message: str) -> str:
    fields = {"time": f"{time:%Y-%m-%dT%H:%M:%S.%fZ}", "level": level}
    fields |= {"source": source} if source else {}
    fields["message"] = message
    if source and (found := _REQUEST_ID.search(message)):
        fields["request_id"] = found[1]
    return json.dumps(fields, ensure_ascii=False)


def _time(text: str, now: datetime) -> datetime:
    try:
        time = datetime.strptime(f"{now.year}{text}", "%Y%m%d %H:%M:%S.%f").replace(tzinfo=UTC)
        # A line of New Year's Eve that is read after midnight.
        return time if time < now + timedelta(days=1) else time.replace(year=now.year - 1)
    except ValueError:  # a model may print what only looks like a line of Triton's, the 29th of February too
        return now


def _unquoted(message: str) -> str:
    """What Triton says: most of its messages are JSON strings, its tables are not."""
    try:
        text = json.loads(message)
    except (ValueError, RecursionError):
        return message.strip()
    return text if isinstance(text, str) else message.strip()
