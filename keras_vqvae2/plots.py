"""Pictures of images in rows and columns."""

import numpy as np

from keras_vqvae2.files import replacing


def save_image_grid(columns, path, title=None):
    """Writes a picture with a row for each image and a titled column for each version of it.

    Args:
        columns: Dict from a column's title to images in `[0, 1]`, shape `(N, H, W, C)` with one or
            three channels; all of one shape.
        path: The PNG to write.
        title: Text above the picture.
    """
    # The figure is made without pyplot: no window, no global state, no backend to choose.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    strips = {name: np.asarray(images) for name, images in columns.items()}
    rows, height, width, _ = next(iter(strips.values())).shape
    cell = max(height, width, 64) / 100
    figure = Figure(
        figsize=(len(strips) * cell * 1.06, rows * cell * 1.06 + (0.55 if title else 0.3)), dpi=200
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, len(strips), squeeze=False)
    for column, (name, images) in enumerate(strips.items()):
        axes[0, column].set_title(name, fontsize=7)
        for row, image in enumerate(images):
            axis = axes[row, column]
            axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_axis_off()
    if title:
        figure.suptitle(title, fontsize=8)
    figure.tight_layout(pad=0.3)
    with replacing(path) as temporary:
        figure.savefig(temporary)
