"""A stand-in for visdet: its registries, its instances, three assigners of its own, and how its heads call them.

Written from the calls that visdet makes, with nothing of its code; its repository is stepped by tools/step_visdet.py.
"""

from visdet import models  # noqa: F401  (registers its classes, as visdet does when it is imported)
