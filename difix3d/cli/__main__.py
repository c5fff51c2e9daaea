"""``python -m difix3d.cli COMMAND``: the commands where the ``difix3d`` script is not on the path."""

from difix3d.cli import main

if __name__ == "__main__":
    main()
