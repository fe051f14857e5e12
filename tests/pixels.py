"""A figure asked for its pixels, by panel and place in the image."""

import numpy as np

from visdet_assigners.observe.draw import render


class Rendered:
    """A figure's pixels, asked by panel and position in the image."""

    def __init__(self, figure):
        self.figure = figure
        self.pixels = render(figure) / 255

    def __call__(self, panel, x, y):
        column, up = self.figure.axes[panel].transData.transform((x, y))
        return self.pixels[int(len(self.pixels) - up), int(column)]


def is_color(value, color, tolerance=0.05):
    return np.abs(value - np.array(color)).max() < tolerance
