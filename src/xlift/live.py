"""One line for each running job below Snakemake's own output, kept up to date while a study runs in a terminal.

Snakemake finds the handler by the package `snakemake_logger_plugin_xlift`; `xlift run` asks for it where its output is
a terminal. What Snakemake prints is printed by its own handler, with the lines taken away before and put back after.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TextIO

from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from xlift.training.progress import duration

EVERY = 1.0
"""Seconds between two looks at the jobs' logs."""
TAIL = 4096
"""Bytes at a log's end in which its last line is looked for."""
MOST = 12
"""Lines that are shown at most; the rest are counted."""


class LiveLines:
    """The lines at a terminal's end. Methods may be called from several threads, one at a time (`lock`)."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self.lock = threading.RLock()
        self._stream, self._clock = stream, clock
        self._jobs: dict[int, tuple[str, Path | None, float]] = {}
        self._shown = 0

    def begin(self, job: int, rule: str, log: str | None) -> None:
        """A job begins; `log`: where it says how far it is."""
        self._jobs[job] = (rule, None if log is None else Path(log), self._clock())

    def end(self, job: int) -> None:
        """A job ended, well or not."""
        self._jobs.pop(job, None)

    def lines(self) -> list[str]:
        """A line a job: what it is, for how long it has run, and its log's last line."""
        now = self._clock()
        found = []
        for rule, log, began in list(self._jobs.values())[:MOST]:
            of = "" if log is None else log.with_suffix("").as_posix().partition(f"/{rule}/")[2]
            said = "" if log is None else last_line(log)
            found.append("  ".join(filter(None, (f"> {rule} {of}".rstrip(), duration(round(now - began)), said))))
        if len(self._jobs) > MOST:
            found.append(f"> and {len(self._jobs) - MOST} more")
        return found

    def draw(self) -> None:
        """Show the lines in place of those that are shown."""
        columns = shutil.get_terminal_size().columns
        # Cut off, not wrapped: a line that took two would not be taken away whole.
        lines = [line[: columns - 1] for line in self.lines()]
        self._stream.write(self._away() + "".join(f"{line}\n" for line in lines))
        self._stream.flush()
        self._shown = len(lines)

    def erase(self) -> None:
        """Take the lines away."""
        self._stream.write(self._away())
        self._stream.flush()
        self._shown = 0

    def _away(self) -> str:
        # Up by so many lines, and everything from there on deleted.
        return f"\r\033[{self._shown}A\033[J" if self._shown else ""


def last_line(log: Path) -> str:
    """A log's last line with anything on it."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(stream.seek(0, os.SEEK_END) - TAIL, 0))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


class LogHandler(LogHandlerBase):
    """Snakemake's own output, and the lines of running jobs below it."""

    def __post_init__(self) -> None:
        settings = self.common_settings
        stream = sys.stdout if settings.stdout else sys.stderr
        quiet = settings.quiet or ()
        self._plain = ColorizingTextHandler(nocolor=settings.nocolor, stream=stream)
        self._plain.setFormatter(DefaultFormatter(quiet, settings.show_failed_logs))
        self._plain.addFilter(
            DefaultFilter(quiet, settings.debug_dag, settings.verbose, settings.dryrun, settings.printshellcmds)
        )
        self._live = LiveLines(stream)
        self._over = threading.Event()
        if stream.isatty() and not settings.dryrun:
            threading.Thread(target=self._keep_drawing, daemon=True).start()
        else:
            self._over.set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record as Snakemake would, and follow which jobs run."""
        with self._live.lock:
            if self._over.is_set():
                self._plain.handle(record)
                return
            try:
                self._live.erase()
                self._plain.handle(record)
                follow(self._live, record.__dict__)
                self._live.draw()
            except Exception:  # as handlers do: nothing that is shown may end a study
                self.handleError(record)

    def _keep_drawing(self) -> None:
        while not self._over.wait(EVERY):
            with self._live.lock:
                if not self._over.is_set():
                    self._live.draw()

    def close(self) -> None:
        """Leave the terminal without the lines."""
        with self._live.lock:
            if not self._over.is_set():
                self._over.set()
                self._live.erase()
        super().close()

    @property
    def writes_to_stream(self) -> bool:
        """In place of Snakemake's own handler."""
        return True

    @property
    def writes_to_file(self) -> bool:
        """No."""
        return False

    @property
    def has_filter(self) -> bool:
        """Every record has to come: which jobs run shows in ones that `--quiet` leaves out."""
        return True

    @property
    def has_formatter(self) -> bool:
        """Snakemake's own, inside."""
        return True

    @property
    def needs_rulegraph(self) -> bool:
        """No."""
        return False


def follow(live: LiveLines, facts: Mapping[str, object]) -> None:
    """Learn from what Snakemake logs which jobs begin and end."""
    event = facts.get("event")
    if event == LogEvent.JOB_INFO:
        logs = facts["log"]
        assert isinstance(logs, list)
        live.begin(int(str(facts["jobid"])), str(facts["rule_name"]), str(logs[0]) if logs else None)
    elif event == LogEvent.JOB_FINISHED:
        live.end(int(str(facts["job_id"])))
    elif event == LogEvent.JOB_ERROR:
        live.end(int(str(facts["jobid"])))
