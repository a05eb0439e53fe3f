"""``python -m fer_sweep``: the command line."""

from fer_sweep.cli import main

if __name__ == "__main__":
    main()
