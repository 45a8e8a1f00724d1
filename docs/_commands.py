"""What does each command say of itself? Writes docs/commands.md from `--help`.

python docs/_commands.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sfiin.runtime import cli

PAGE = Path(__file__).with_name("commands.md")
HEAD = """# Commands

Made from the commands themselves by `python docs/_commands.py`.
"""


def render() -> str:
    """The page."""
    group: Any = cli._application()
    names = group.list_commands(None)
    helps = [f"## sfiin {name}\n\n{indented(help_of(group.commands[name], name))}\n" for name in names]
    return "\n".join([HEAD, *helps])


def help_of(command: Any, name: str) -> str:
    """A command's help, 100 columns wide whatever the terminal."""
    context = command.make_context(
        f"sfiin {name}", [], resilient_parsing=True, terminal_width=100, max_content_width=100
    )
    return "\n".join(line.rstrip() for line in command.get_help(context).splitlines())


def indented(text: str) -> str:
    """As a block of code."""
    return "\n".join(f"    {line}" if line else "" for line in text.splitlines())


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
