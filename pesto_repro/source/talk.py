"""Talking with a command in the room: its input is fed, its answer kept, what it says is heard, all through pipes.

No file of the host is in the room, so nothing there can be changed, filled or replaced by a link. The answer and the
time are bounded; what is said is shown on terminals, so only what can be printed is left of it.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import IO, BinaryIO

from pesto_repro.digest import CHUNK
from pesto_repro.errors import BuildError
from pesto_repro.sandbox.cell import Cell, Running, start
from pesto_repro.sandbox.engines import Engine

KEPT = 40
_LINE = 4096


@dataclass(slots=True)
class Log:
    """What a command said: the last lines of it are kept, *hear* is told all."""

    hear: Callable[[str], None]
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT))

    def listen(self, stream: IO[bytes]) -> None:
        """Take every line of *stream*, to its end."""
        while raw := stream.readline(_LINE):
            line = printable(raw.decode(errors="replace"))
            self.lines.append(line)
            self.hear(line)


def printable(text: str) -> str:
    """*text* as one line that does nothing to a terminal."""
    return "".join(
        each if each.isprintable() or each == "\t" else "\N{REPLACEMENT CHARACTER}" for each in text.rstrip()
    )


@dataclass(frozen=True, slots=True)
class Limits:
    """*answer* in bytes, *time* in seconds."""

    answer: int
    time: float


def talk(
    cell: Cell,
    command: Sequence[str],
    feed: BinaryIO,
    answer: IO[bytes],
    log: Log,
    limits: Limits,
    engine: Engine | None = None,
) -> int:
    """Run *command* in *cell*: *feed* is its input, its output goes to *answer*, the rest to *log*; its exit code.

    Nothing of it runs any more afterwards. Raises BuildError if it takes longer or answers more than it may.
    """
    (their_in, our_in), (our_out, their_out), (our_err, their_err) = os.pipe(), os.pipe(), os.pipe()
    ours: list[IO[bytes]] = [os.fdopen(our_in, "wb", 0), os.fdopen(our_out, "rb", 0), os.fdopen(our_err, "rb")]
    try:
        running = start(cell, command, stdin=their_in, stdout=their_out, stderr=their_err, engine=engine)
    except BaseException:
        _close(ours)
        raise
    finally:
        for each in (their_in, their_out, their_err):
            os.close(each)
    return _Conversation(running, limits).hold(ours, feed, answer, log)


class _Conversation:
    def __init__(self, running: Running, limits: Limits) -> None:
        self._running, self._limits, self._too_much = running, limits, False
        self._failures: list[Exception] = []

    def hold(self, ours: Sequence[IO[bytes]], feed: BinaryIO, answer: IO[bytes], log: Log) -> int:
        into, out, said = ours
        jobs = [lambda: self._feed(feed, into), lambda: self._keep(out, answer), lambda: log.listen(said)]
        threads = [threading.Thread(target=self._do, args=(job,), daemon=True) for job in jobs]
        for each in threads:
            each.start()
        try:
            code = self._running.wait(self._limits.time)
        finally:
            self._running.stop(0)
            for each in threads:
                each.join()
            _close(ours)
        if self._failures:
            raise self._failures[0]
        if self._too_much:
            raise BuildError(f"it handed over more than {self._limits.answer} bytes")
        if code is None:
            raise BuildError(f"it had not ended after {self._limits.time:g} seconds")
        return code

    def _do(self, job: Callable[[], None]) -> None:
        """A failure of ours (a full disk) ends the command, too: nobody would read what it says any more."""
        try:
            job()
        except Exception as error:
            self._failures.append(error)
            self._running.stop(0)

    def _feed(self, feed: BinaryIO, into: IO[bytes]) -> None:
        try:
            while piece := feed.read(CHUNK):
                rest = memoryview(piece)
                while rest:
                    rest = rest[into.write(rest) :]
        except BrokenPipeError:
            return  # it ended before it read everything: its exit code says why
        finally:
            into.close()

    def _keep(self, out: IO[bytes], answer: IO[bytes]) -> None:
        left = self._limits.answer
        while piece := out.read(CHUNK):
            left -= len(piece)
            if left < 0:
                self._too_much = True
                self._running.stop(0)
                return
            answer.write(piece)


def _close(streams: Sequence[IO[bytes]]) -> None:
    for each in streams:
        each.close()
