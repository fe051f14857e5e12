"""What belongs to training alone: data, a config's assigners, images, checkpoints, random states; nothing that assigns
imports it.
"""
