"""``python -m hepbridge.cli``, for where the ``hepbridge`` script is not on the path."""

from hepbridge.cli import main

main()
