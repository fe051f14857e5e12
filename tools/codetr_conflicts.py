#!/usr/bin/env python
"""The command ``conflicts`` of visdet_assigners, where mmdet's users look for it."""

import sys

from visdet_assigners.commands.conflicts import main

if __name__ == "__main__":
    sys.exit(main())
