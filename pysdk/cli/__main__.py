"""python -m pysdk.cli: the command `pysdk`."""

from pysdk.cli.commands import main

main()
