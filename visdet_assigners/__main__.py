"""``python -m visdet_assigners COMMAND``."""

from visdet_assigners.command_line import main

if __name__ == "__main__":
    main()
