"""`sluice dead`: messages no service could handle."""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli.options import Json

app = typer.Typer(help="Poison messages: list, show, replay.", no_args_is_help=True)
Number = Annotated[int, typer.Argument(help="As `sluice dead list` shows it.")]


@app.command("list")
def list_letters(json: Json = False) -> None:
    """List dead letters with their reasons."""
    from services.cli.deadletters import letters
    from services.cli.reporting import emit
    from services.cli.session import Session, perform

    async def work(opened: Session) -> None:
        found = await letters(opened)
        for dead in found:
            if json:
                emit(dead.as_json())
                continue
            print(f"{dead.number}  {dead.service}  {dead.header('subject')}")
            print(f"    {dead.header('error')}: {dead.header('reason')}")
            if dead.header("mend"):
                print(f"    mend: {dead.header('mend')}")
        if not found and not json:
            print("no dead letters")

    perform(work)


@app.command("show")
def show_letter(number: Number, json: Json = False) -> None:
    """Show one dead letter with its headers and content."""
    from services.cli.deadletters import letter
    from services.cli.reporting import emit
    from services.cli.session import Session, perform

    async def work(opened: Session) -> None:
        dead = await letter(opened, number)
        content = dead.stored.data.decode(errors="replace")
        if json:
            emit({**dead.as_json(), "headers": dead.stored.headers, "content": content})
            return
        for name, value in dead.stored.headers.items():
            print(f"{name}: {value}")
        print(f"\n{content}")

    perform(work)


@app.command("replay")
def replay_letters(
    number: Annotated[int | None, typer.Argument(help="Which one.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the letter in DEAD.")] = False,
    json: Json = False,
) -> None:
    """Send dead letters again, once what buried them is mended."""
    from contracts.base import Problem
    from services.cli.deadletters import letter, letters, replay
    from services.cli.reporting import emit
    from services.cli.session import Session, perform
    from shared.errors import InvalidInput

    if (number is None) == (not every):
        raise InvalidInput(
            [Problem(where="dead replay", problem="which one?", mend="give a number, or --all")]
        )

    async def work(opened: Session) -> None:
        chosen = await letters(opened) if number is None else [await letter(opened, number)]
        for dead in chosen:
            done = await replay(opened, dead, keep=keep)
            if json:
                emit({"number": dead.number, "done": done})
            else:
                print(f"{dead.number}: {done}")

    perform(work)
