"""`python -m tests.command_line`: what the script `reconcile` does."""

from reconcile.cli import main

if __name__ == "__main__":
    main()
