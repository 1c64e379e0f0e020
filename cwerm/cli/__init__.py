"""The command line. A user's mistake is one line on standard error and exit code 2."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import typer

from cwerm.cli.app import app
from cwerm.errors import UserError
from cwerm.terminal import ending

# Each adds its commands, in the order of the help.
from cwerm.cli import finding, runs, sweeps, results, submission, upkeep  # noqa: F401 # isort: skip

_INTERRUPTED = 130
_UsageError: Any = typer.BadParameter.__base__  # typer exports only its subclass


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``cwerm``; the arguments are the process's own where they are not given."""
    ending.open_standard_streams()
    if arguments is None:
        ending.listen()
    try:
        code = _code(sys.argv[1:] if arguments is None else list(arguments))
    except BaseException as leaving:
        number = ending.exit_code()
        if number is None:
            raise
        if isinstance(leaving, SystemExit) and leaving.code == _INTERRUPTED:
            sys.exit(number)  # the command has said what becomes of its work
        code = _INTERRUPTED  # whatever became of the interruption on its way
    if code == _INTERRUPTED:
        ending.tell()
        code = ending.exit_code() or code
    sys.exit(code)


def _code(arguments: list[str]) -> int:
    """Run a command; its exit code."""
    try:
        return app(arguments or ["--help"], prog_name="cwerm", standalone_mode=False) or 0
    except UserError as error:
        ending.say(str(error))
        return 2
    except _UsageError as error:
        command = error.ctx.command_path if error.ctx else "cwerm"
        ending.say(f"{error.format_message().rstrip('.')}; see `{command} --help`")
        return 2
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
