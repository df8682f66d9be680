"""``python -m hepbridge``, for where the ``hepbridge`` script is not on the path."""

from hepbridge.cli import main

main()
