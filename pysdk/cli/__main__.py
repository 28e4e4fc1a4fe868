"""python -m pysdk.cli: the command `pysdk`."""

from pysdk.cli.start import main

main()
