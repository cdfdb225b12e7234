"""Logs as JSON lines: time, level, what happened, which session. No media, keys or tokens."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

# What a record has anyway; everything else on it was given by whoever logged.
_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_SECRET_WORDS = ("token", "secret", "credential", "password", "authorization", "bearer", "sdp")
MAX_VALUE_CHARS = 500


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record; fields whose names sound secret are left out."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "what": record.getMessage()[:MAX_VALUE_CHARS],
        }
        for name, value in vars(record).items():
            if name not in _USUAL and not any(word in name.lower() for word in _SECRET_WORDS):
                plain = isinstance(value, int | float | bool) or value is None
                line[name] = value if plain else str(value)[:MAX_VALUE_CHARS]
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_as_json(stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Send all logs to `stream` (standard error) as JSON lines."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # aioice tells of every candidate, aiohttp of every request with its whole line.
    for chatty in ("aioice", "aiortc", "aiohttp.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
