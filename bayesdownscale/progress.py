"""A progress bar with time spent and time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Advance:
    """A progress bar's handle: call it with the work done so far; `note` sets the text beside it."""

    def __init__(self, set_done: Callable[[int], None], set_note: Callable[[str], None]):
        self._set_done, self.note = set_done, set_note

    def __call__(self, done: int) -> None:
        self._set_done(done)


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Advance]:
    """A progress bar on standard error with time spent and time left."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.description}"), console=console) as bar:
        task = bar.add_task("", total=total)

        def note(text: str) -> None:
            bar.update(task, description=text)
            if not console.is_terminal:  # a log file: one line each time there is something to say
                console.print(f"{what} {bar.tasks[task].completed:g}/{total} {text}", highlight=False)

        yield Advance(lambda done: bar.update(task, completed=done), note)
