"""``robopolicy COMMAND``: finds the command's file, reads its arguments, runs it."""

from __future__ import annotations

import errno
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Sequence
from types import ModuleType

import tyro
from rich.console import Console
from rich.markup import escape

from robopolicy import __version__, cli
from robopolicy.core.errors import RobopolicyError

PRIVATE = ("main",)
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)


def commands(group: ModuleType = cli) -> list[str]:
    """Names of the (sub-)commands: the file names in a package, with hyphens."""
    found = (m.name for m in pkgutil.iter_modules(group.__path__))
    return sorted(n.replace("_", "-") for n in found if n not in PRIVATE and not n.startswith("_"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 2 for bad input, 130 when interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    if given[:1] == ["--version"]:
        print(__version__)
        return 0
    return _dispatch(cli, "robopolicy", given, console)


def _dispatch(group: ModuleType, prog: str, given: list[str], console: Console) -> int:
    if not given or given[0] in ("-h", "--help"):
        print(_help(group, prog))
        return 0 if given else 2
    name, rest = given[0].replace("_", "-"), given[1:]
    if name not in commands(group):
        return _refuse(console, f"unknown command {name!r}; known: {', '.join(commands(group))}")
    try:
        command = importlib.import_module(_module(group, name))
        if hasattr(command, "__path__"):
            return _dispatch(command, f"{prog} {name}", rest, console)
        flags = [word.split("=")[0].replace("_", "-") for word in rest if word.startswith("--")]
        if twice := sorted({flag for flag in flags if flags.count(flag) > 1}):  # the last would silently win
            return _refuse(console, f"{', '.join(twice)} given twice; several values follow one flag")
        args_type = command.arguments(rest) if hasattr(command, "arguments") else command.Args
        args = tyro.cli(args_type, args=rest, prog=f"{prog} {name}", description=command.__doc__)
        return int(command.run(args) or 0)
    except RobopolicyError as error:
        return _refuse(console, str(error))
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("robopolicy"):
            raise
        return _refuse(console, f"'{name}' needs the package {error.name!r}; see 'robopolicy doctor'")
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        return _refuse(console, f"cannot write: {error}")
    except KeyboardInterrupt:
        console.print("interrupted; what was finished is kept")
        return 130


def _module(group: ModuleType, name: str) -> str:
    return f"{group.__name__}.{name.replace('-', '_')}"


def _refuse(console: Console, message: str) -> int:
    console.print("[bold red]error:[/]", escape(message))  # brackets in a message are no markup
    return 2


def _help(group: ModuleType, prog: str) -> str:
    lines = [f"usage: {prog} COMMAND [options]   ({prog} COMMAND --help lists them)", ""]
    for name in commands(group):
        spec = importlib.util.find_spec(_module(group, name))
        assert spec is not None and spec.origin is not None
        with open(spec.origin, encoding="utf-8") as file:
            first = file.readline().strip().strip('"')
        lines.append(f"  {name:<13}{first}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
