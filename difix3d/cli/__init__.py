"""The command line: ``difix3d COMMAND`` and ``scripts/COMMAND.py`` are the same functions."""

import errno
import logging
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from difix3d.errors import UserError, visible
from difix3d.files import SHOWN
from difix3d.interrupt import unwinding
from difix3d.streams import lenient_output

COMMANDS = {
    "train": "Train a Gaussian-splatting model on a scene.",
    "render": "Render a trained run along a camera path, to frames and a video.",
    "view": "Look at a trained run, or any splat model, in the browser.",
    "evaluate": "Measure trained runs: metrics, tables, pictures, a report.",
    "download": "Download a public scene (Mip-NeRF 360).",
    "fix": "Clean images with Difix.",
    "curate": "Curate pairs (bad render, true photo) to train Difix on.",
    "train-difix": "Train Difix on pairs, from SD-Turbo, from a Difix or from scratch.",
    "benchmark": "Train and evaluate methods on a whole data set, and fill a table.",
}
"""Each is the function of its name (with _ for -) in the module of its name, taking the arguments that follow."""


NO_ROOM = UserError(
    "The GPU ran out of memory",
    cure="Close other programs on the GPU, choose a smaller size or --fixer mini, or add --device cpu",
)
"""What is said where a command knows no better cure."""


class _Visible(logging.Formatter):
    """Warnings, in which names out of other people's files do not steer the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def dispatch(command: str, args: Sequence[str] | None = None) -> None:
    """Runs one command; a :class:`UserError` is printed without a traceback and ends the program with status 2."""
    name = command.replace("-", "_")
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Visible())
    with lenient_output() as out, unwinding():
        try:
            function: Callable[[Sequence[str] | None], None] = getattr(import_module(f"difix3d.cli.{name}"), name)
            function(args)
            out.check()
        except UserError as error:
            print(f"\ndifix3d {command}: {error}", file=sys.stderr)
            raise SystemExit(2) from None
        except RuntimeError as error:  # by its name: most commands that fail early have not loaded torch
            if type(error).__name__ != "OutOfMemoryError":
                raise
            print(f"\ndifix3d {command}: {NO_ROOM}", file=sys.stderr)
            raise SystemExit(2) from None
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            name = visible(str(error.filename)[:SHOWN])
            print(f"\ndifix3d {command}: The name {name}... is too long. Check the path.", file=sys.stderr)
            raise SystemExit(2) from None
        except KeyboardInterrupt:
            print(f"\ndifix3d {command}: interrupted", file=sys.stderr)
            raise SystemExit(130) from None


def main() -> None:
    """Entry point of the ``difix3d`` console command."""
    args = sys.argv[1:]
    if args[:1] == ["--version"]:
        from difix3d import __version__

        print(__version__)
    elif args and (command := args[0].replace("_", "-")) in COMMANDS:
        sys.argv[0] = f"difix3d {command}"  # what --help calls the program
        dispatch(command, args[1:])
    else:
        width = max(map(len, COMMANDS))
        lines = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
        asked = args[:1] in (["-h"], ["--help"], [])
        with lenient_output():
            if not asked:
                print(f"difix3d: there is no command {visible(args[0][:SHOWN])}\n", file=sys.stderr)
            print(
                f"usage: difix3d COMMAND [options]\n\ncommands:\n{lines}\n\n'difix3d COMMAND --help' explains each.",
                file=sys.stdout if asked else sys.stderr,
            )
        raise SystemExit(0 if asked else 2)
