"""The command `pysdk`, also as `python -m pysdk.cli`."""

from pysdk.machine import interrupts


def main() -> None:
    """Run the command line."""
    interrupts.leave_at_once()  # while it is imported
    from pysdk.cli import commands

    commands.main()


if __name__ == "__main__":
    main()
