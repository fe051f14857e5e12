#!/usr/bin/env python
"""The command ``train`` of visdet_assigners, where mmdet's users look for it."""

import sys

from visdet_assigners.commands.train import main

if __name__ == "__main__":
    sys.exit(main())
