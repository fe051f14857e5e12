#!/usr/bin/env python
"""The command ``make-shapes`` of visdet_assigners, where mmdet's users look for it."""

import sys

from visdet_assigners.commands.make_shapes import main

if __name__ == "__main__":
    sys.exit(main())
