"""The command `pysdk`, also as `python -m pysdk.cli`. Its import is its start: Ctrl-C then ends it with one line."""

from pysdk.machine.early_exit import leave_at_once

leave_at_once()  # not in `main`: before it is called, pip's script compiles a regular expression


def main() -> None:
    """Run the command line."""
    from pysdk.cli import commands

    commands.main()


if __name__ == "__main__":
    main()
