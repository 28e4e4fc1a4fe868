"""Entry point of the command `pysdk`. Importing it starts the command: from here on Ctrl-C ends it with one line."""

from pysdk.cli.early_exit import leave_at_once

leave_at_once()  # before `main` is called, for which pip's script compiles a regular expression


def main() -> None:
    """Run `pysdk`."""
    from pysdk.cli import commands

    commands.main()
