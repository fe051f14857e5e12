"""What it takes to try assigners: scenes, drawn and real, and each assigner's inputs.  Scenes and feeds need torch
alone; what compares with mmdet needs mmdet.
"""
