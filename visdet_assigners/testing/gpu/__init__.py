"""What is checked and measured on a device, for the day one is at hand: ``tools/gpu_check.py``.  Needs torch alone."""
