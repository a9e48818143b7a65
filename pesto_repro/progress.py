"""How the core tells whoever watches what it does. The core never prints or logs: it calls these hooks.

``Reporter`` itself does nothing; the command line has one that draws, tests have one that records.
Hooks may be called from several threads at once.
"""

from __future__ import annotations

from types import TracebackType


class Activity:
    """One piece of work under way, used as a context: ``with reporter.activity(...) as it: it.advance(n)``."""

    def __enter__(self) -> Activity:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def advance(self, amount: int) -> None:
        """*amount* more bytes are done."""


class Reporter:
    """Hooks that do nothing. Subclass and override what you want to hear of."""

    def activity(self, verb: str, name: str, total: int | None = None) -> Activity:
        """Work starts: ``verb`` is "download", "build", "resolve"...; *total* in bytes where known."""
        return Activity()

    def warn(self, message: str, hint: str | None = None) -> None:
        """Something the user should know although it does not stop the work."""

    def info(self, message: str) -> None:
        """Something worth a line."""

    def debug(self, message: str) -> None:
        """Something for whoever asked for details (``-v``). Never a credential."""
