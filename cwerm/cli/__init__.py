"""The command line. A user's mistake is one line on standard error and exit code 2."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import typer

from cwerm.cli.app import app
from cwerm.errors import UserError
from cwerm.terminal import console, ending

# Each adds its commands, in the order of the help.
from cwerm.cli import finding, runs, sweeps, results, submission, upkeep  # noqa: F401 # isort: skip

FOR_ALL = {"--json", "--quiet"}
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


def _taken(arguments: list[str]) -> tuple[set[str], list[str]]:
    """The options that every command has, and the other arguments; what follows ``--`` stays."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    left = [text for text in arguments[:end] if text not in FOR_ALL]
    return {*arguments[:end]} & FOR_ALL, left + arguments[end:]


def _code(arguments: list[str]) -> int:
    """Run a command; its exit code."""
    chosen, arguments = _taken(arguments)
    console.speak(quiet="--quiet" in chosen, as_json="--json" in chosen)
    try:
        code = app(arguments or ["--help"], prog_name="cwerm", standalone_mode=False) or 0
        console.print_answer()
        return code
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
