"""``python -m pesto_repro`` is the console script."""

from pesto_repro.cli.main import main

main()
