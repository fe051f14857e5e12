"""What it takes to try assigners: scenes, drawn and real, and each assigner's inputs.  Needs mmdet."""
