"""`python -m g4eval`: the command line."""

from g4eval.cli.entry import main

if __name__ == "__main__":
    main()
