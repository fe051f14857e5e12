#!/usr/bin/env python
"""The command ``test`` of visdet_assigners, where mmdet's users look for it."""

import sys

from visdet_assigners.commands.test import main

if __name__ == "__main__":
    sys.exit(main())
