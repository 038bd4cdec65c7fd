"""What the commands share: settings, and saying in a sentence what went wrong."""

from __future__ import annotations

from typing import NoReturn

import typer
from rich.console import Console

from bot import settings as conf

errors = Console(stderr=True)


def read_settings(**changes: object) -> conf.Settings:
    """The settings, with ``changes`` from the command line. Wrong ones end the command."""
    try:
        return conf.load(**changes)
    except conf.BadSettings as error:
        fail(str(error))


def fail(message: str) -> NoReturn:
    """End the command with status 1."""
    errors.print(message, style="bold red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(1)
