#!/usr/bin/env python
"""The command ``measure-constants`` of visdet_assigners, where mmdet's users look for it."""

import sys

from visdet_assigners.commands.measure_constants import main

if __name__ == "__main__":
    sys.exit(main())
