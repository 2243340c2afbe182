"""`python -m twinvault` is the command line."""

from twinvault.cli import main

if __name__ == "__main__":
    main()
