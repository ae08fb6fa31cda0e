"""Pictures of images in rows and columns, of curves, and colours for codes."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_vqvae2.files import replacing
from keras_vqvae2.hints import FilePath, Tensor

__all__ = ["code_colours", "reconstruction_rows", "save_curves", "save_image_rows"]


def save_image_rows(
    rows: Mapping[str, np.ndarray], path: FilePath, title: str | None = None
) -> None:
    """Writes a picture with a labelled row for each version of some images, a column an image.

    Args:
        rows: Dict from a row's label to images in `[0, 1]`, shape `(N, H, W, C)` with one or
            three channels; all of one shape.
        path: The PNG to write.
        title: Text above the picture.
    """
    # The figure is made without pyplot: no window, no global state, no backend to choose.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = {label: np.asarray(images) for label, images in rows.items()}
    count, height, width, _ = next(iter(rows.values())).shape
    inches = 1.28 / max(height, width)  # an image's longer side on paper, in inches a pixel
    figure = Figure(
        figsize=(count * width * inches + 0.3, len(rows) * height * inches + 0.3 * bool(title)),
        dpi=max(100, min(300, 1 / inches)),
        layout="compressed",
    )
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01)
    grid = figure.subplots(len(rows), count, squeeze=False)
    for axes, (label, images) in zip(grid, rows.items()):
        axes[0].set_ylabel(label, fontsize=8)
        for axis, image in zip(axes, images):
            axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    if title:
        figure.suptitle(title, fontsize=9)
    with replacing(path) as temporary:
        figure.savefig(temporary)


def reconstruction_rows(vqvae: Any, images: Tensor) -> dict[str, np.ndarray]:
    """What a model keeps of images, as the rows of a picture.

    Args:
        vqvae: `VQVAE2`.
        images: Array of shape `(N, H, W, C)`, floats in `[0, 1]`.

    Returns:
        Dict for `save_image_rows`: `"original"`, `"reconstruction"`, and for each number of coarser
        levels what they hold without the finer ones, such as `"top only"`.

    Raises:
        ValueError: If the images do not fit the model.

    Example:

    ```python
    import keras_vqvae2
    from keras_vqvae2.plots import reconstruction_rows, save_image_rows

    vqvae = keras_vqvae2.VQVAE2((16, 16, 3), hidden_units=8, residual_units=4)
    rows = reconstruction_rows(vqvae, keras_vqvae2.data.sample_photographs(16) / 255)
    print(list(rows))  # ['original', 'reconstruction', 'top only']
    save_image_rows(rows, "reconstructions.png")
    ```
    """
    codes = vqvae.encode(images)
    rows = {"original": images, "reconstruction": vqvae.decode(codes)}
    for count in range(len(vqvae.levels) - 1, 0, -1):
        upper = vqvae.levels[:count]
        rows[" + ".join(upper) + " only"] = vqvae.decode({level: codes[level] for level in upper})
    return rows


def save_curves(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    path: FilePath,
    x_label: str,
    y_label: str,
    title: str | None = None,
) -> None:
    """Writes a picture of curves over one axis.

    Args:
        curves: Dict from a curve's label to a pair of sequences, x and y.
        path: The PNG to write.
        x_label: Text at the axis of x.
        y_label: Text at the axis of y.
        title: Text above the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for label, (x, y) in curves.items():
        axis.plot(x, y, label=label, marker="." if len(x) < 50 else None)
    axis.set(xlabel=x_label, ylabel=y_label, title=title)
    axis.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=4)  # hides no curve
    with replacing(path) as temporary:
        figure.savefig(temporary)


def code_colours(codebook: Tensor) -> np.ndarray:
    """A colour for each code: codes with like vectors have like colours.

    Red, green and blue are the ranks of the code's vector along the three directions in which the
    codebook varies most.

    Args:
        codebook: Vectors of shape `(codes, dimensions)`.

    Returns:
        Floats in `[0, 1]`, shape `(codes, 3)`.
    """
    vectors = keras.ops.convert_to_numpy(codebook)
    vectors = vectors - vectors.mean(axis=0)
    _, _, directions = np.linalg.svd(vectors, full_matrices=False)
    places = np.zeros((len(vectors), 3))
    places[:, : len(directions)] = vectors @ directions[:3].T  # (codes, 3)
    return places.argsort(axis=0).argsort(axis=0) / max(1, len(places) - 1)
