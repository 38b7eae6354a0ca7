"""`python -m qhat` is `qhat`."""

from qhat.cli.main import main

main()
