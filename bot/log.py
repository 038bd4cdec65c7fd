"""The log: one line a thing that happened, on standard error, ours and everybody else's."""

from __future__ import annotations

import logging
import sys

from loguru import logger

CHATTY = (
    "pipecat",
    "baresip",
    "aioice",
    "aiortc",
    "uvicorn",
)  # warn of calls without video, of hang-ups, ...


def set_up(level: str) -> None:
    """Log from ``level`` on; the chatty libraries only their errors, unless ``level`` is DEBUG or finer."""
    chatty = logger.level(level).no > logger.level("DEBUG").no

    def wanted(record: object) -> bool:
        fields: dict[str, object] = record  # type: ignore[assignment] # loguru's record is a dict at run time
        number = getattr(fields["level"], "no", 0)
        return not (chatty and str(fields["name"]).startswith(CHATTY) and number < logging.ERROR)

    logger.remove()
    logger.add(
        _write,
        level=level,
        filter=wanted,
        format="{time:HH:mm:ss.SSS} {level:<7} {message}{extra[on]}",
        colorize=False,
    )
    logger.configure(extra={"on": ""}, patcher=_name_call)
    logging.basicConfig(handlers=[_ToLoguru()], level=logging.INFO, force=True)


def _write(line: str) -> None:
    sys.stderr.write(line)  # looked up each time: it is another object while a progress display is shown


def _name_call(record: object) -> None:
    extra = record["extra"]  # type: ignore[index] # loguru's record is a dict at run time
    call = extra.get("call_id") or extra.get("call")
    extra["on"] = f"  [call {str(call)[:8]}]" if call else ""


class _ToLoguru(logging.Handler):
    """What libraries say through ``logging``, in the same log."""

    def emit(self, record: logging.LogRecord) -> None:
        def named(fields: object) -> None:
            fields["name"] = record.name  # type: ignore[index] # loguru's record is a dict at run time

        logger.patch(named).opt(exception=record.exc_info).log(
            record.levelname
            if record.levelname in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
            else "INFO",
            "{}",
            record.getMessage(),
        )
