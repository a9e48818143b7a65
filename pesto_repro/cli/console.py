"""Talking to people: stdout is data, stderr is talk. The only module that prints."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pesto_repro.errors import PestoError
from pesto_repro.progress import Activity, Reporter

if TYPE_CHECKING:
    from rich.progress import Progress


class Console(Reporter):
    """Warnings and news on stderr, and bars of progress there if it is a terminal. Close it at the end."""

    def __init__(self, *, quiet: bool = False, verbose: int = 0, progress: bool = True) -> None:
        self.quiet, self.verbose = quiet, verbose
        self._lock = threading.Lock()
        self._draw = progress and not quiet and sys.stderr.isatty()
        self._bars: Progress | None = None

    def activity(self, verb: str, name: str, total: int | None = None) -> Activity:
        """A bar while it runs; with ``-v`` a line that stays, when it starts."""
        self.debug(f"{verb} {name}")
        return _Bar(self._progress(), f"{verb} {_short(name)}", total) if self._draw else Activity()

    def warn(self, message: str, hint: str | None = None) -> None:
        """A warning, shown even with ``-q``."""
        self._say(f"warning: {message}")
        if hint:
            self._say(f"hint: {hint}")

    def info(self, message: str) -> None:
        """News, unless ``-q``."""
        if not self.quiet:
            self._say(message)

    def debug(self, message: str) -> None:
        """Details, with ``-v``."""
        if self.verbose:
            self._say(message)

    def failure(self, error: PestoError) -> None:
        """``error:`` what, where, why; ``hint:`` what to do."""
        self.close()
        self._say(f"error: {error.message}")
        if error.hint:
            self._say(f"hint: {error.hint}")

    def close(self) -> None:
        """Take the bars off the screen."""
        if self._bars is not None:
            self._bars.stop()

    def _say(self, text: str) -> None:
        with self._lock:
            if self._bars is not None:
                self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
            else:
                print(text, file=sys.stderr, flush=True)

    def _progress(self) -> Progress:
        with self._lock:
            if self._bars is None:
                self._bars = _new_bars()
            return self._bars


def _new_bars() -> Progress:
    """Bars of progress on stderr, gone when done. Imported late: most runs draw nothing."""
    from rich.console import Console as Terminal
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    bars = Progress(*columns, console=Terminal(stderr=True), transient=True)
    bars.start()
    return bars


def _short(name: str) -> str:
    return name if len(name) < 32 else f"{name[:31]}…"


class _Bar(Activity):
    """One activity under way, as a bar."""

    def __init__(self, bars: Progress, text: str, total: int | None) -> None:
        self._bars, self._task = bars, bars.add_task(text, total=total)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.remove_task(self._task)

    def advance(self, amount: int) -> None:
        self._bars.advance(self._task, amount)


def show(text: str) -> None:
    """Data, on stdout."""
    print(text, flush=True)


def show_json(value: Mapping[str, Any]) -> None:
    """One JSON object, on stdout."""
    print(json.dumps(value, indent=2), flush=True)


def human(size: int) -> str:
    """Bytes for people: ``1.5 MB``."""
    number, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            break
        number /= 1000
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
