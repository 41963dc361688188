"""`python -m bayesdownscale`: the command line."""

from bayesdownscale.cli import main

main()
