"""``parley train``: making the model that ships with Parley again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bot.console import fail

app = typer.Typer(no_args_is_help=True, help="Make the demo model again that ships with Parley.")


@app.callback()
def group() -> None:
    """Have ``nano`` be a command of its own, though it is the only one."""


@app.command()
def nano(
    work: Annotated[Path, typer.Option(help="Speech, states and logs; many gigabytes of speech.")] = Path(
        "build/nano/work"
    ),
    out: Annotated[Path, typer.Option(help="The checkpoint folder it becomes.")] = Path(
        "build/nano/checkpoint"
    ),
    share: Annotated[
        float,
        typer.Option(min=0.001, max=1.0, help="Of the whole recipe's speech and time; 0.01 is a rehearsal."),
    ] = 1.0,
    processes: Annotated[
        int, typer.Option(min=0, help="Processes that work at once; 0: as many as there are cores.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of what is said, and of the weights' beginnings.")] = 1,
    again: Annotated[str, typer.Option(help="Do this stage from its beginning, and all behind it.")] = "",
) -> None:
    """Make nano from nothing, or go on where it was stopped: some five hours of two cores."""
    from model_runtime.training import recipe

    if lacks := recipe.missing():
        fail(f"This machine lacks {'; '.join(lacks)}.")
    places = recipe.Places(work.absolute(), out.absolute(), processes or os.cpu_count() or 1)
    console = Console()
    try:
        recipe.begin(places, {"share": share, "seed": seed})
        todo = list(recipe.stages(places, recipe.Amounts(share), seed))
        recipe.make(places, todo, lambda line: console.print(line, style="bold", markup=False), again)
    except recipe.RecipeError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("Stopped. The same command goes on from there.")
    console.print(f"{out} holds it: parley serve --checkpoint {out}", markup=False)
