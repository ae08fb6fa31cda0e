"""Tables and grids: what the scripts print and draw of their results."""

import numpy as np

from keras_vqvae2.plots import save_image_rows


def markdown_table(columns, rows):
    """Markdown of rows of texts and numbers."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = [format(cell, ".4g") if isinstance(cell, float) else str(cell) for cell in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def labels_of_rows(generator, each):
    """Labels of the images of a grid with a row a class, or None, and the names of the rows."""
    names = generator.class_names or [""]
    return np.repeat(np.arange(len(names)), each) if generator.num_classes else None, names


def save_grid(images, names, path, title=None):
    """Writes a picture of images, as many in a row of each name."""
    rows = images.reshape(len(names), -1, *images.shape[1:])
    save_image_rows(dict(zip(names, rows)), path, title)
