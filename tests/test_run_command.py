"""What ``run`` and ``test`` do around a service: its log, signals, files that cannot be written."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from pesto_repro.cli.console import Console
from pesto_repro.cli.rooted import _stoppable
from pesto_repro.cli.run import show_tail
from pesto_repro.cli.test import _writing
from pesto_repro.errors import PestoError


def test_the_end_of_a_log_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The last 20 lines."""
    with (tmp_path / "log").open("w+b") as log:
        log.write(b"".join(b"line %d\n" % number for number in range(30)))
        show_tail(log, Console())
    expected = "".join(f"  line {number}\n" for number in range(10, 30))
    assert f"warning: the service's log ends with:\n{expected}" == capsys.readouterr().err


def test_stderr_is_not_shown_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With -v it is the log; where it goes to a file it can be positioned, but not read."""
    with (tmp_path / "stderr").open("wb") as log:
        log.write(b"line")
        show_tail(log, Console())
        assert 4 == log.tell()
    assert "" == capsys.readouterr().err


def test_a_signal_that_is_ignored_stays_so() -> None:
    """nohup(1): a service goes on when its terminal is gone."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with _stoppable():
            signal.raise_signal(signal.SIGHUP)
            with pytest.raises(SystemExit) as caught:
                signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert 128 + signal.SIGTERM == caught.value.code


def test_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    """An error that names the file."""
    with pytest.raises(PestoError) as caught, _writing(tmp_path):
        tmp_path.write_bytes(b"")
    assert f"{tmp_path} cannot be written: Is a directory" == caught.value.message
