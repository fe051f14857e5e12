"""Settings of all tests: one thread, so that two test runs don't wait for each other."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)
