"""A head that needs no data: skull, tissue with structure, a lesion, noise of a known level."""

import numpy as np

from dicomguard.retrain.tamper.filters import float32, gaussian
from dicomguard.retrain.tamper.forged import Canvas


def phantom(
    *, slices: int = 3, rows: int = 128, cols: int = 120, lesion: bool = True, high: float = 255.0, seed: int = 0
) -> Canvas:
    rng = np.random.default_rng(seed)
    axis_r, axis_c = (np.arange(rows) - rows / 2) / (0.44 * rows), (np.arange(cols) - cols / 2) / (0.44 * cols)
    reach = np.hypot(axis_r[:, None], axis_c[None, :])
    pixels = np.zeros((slices, rows, cols), np.float32)
    marked = np.zeros((slices, rows, cols), np.bool_)
    for z in range(slices):
        folds = gaussian(rng.standard_normal((rows, cols)).astype(np.float32), 3.0) * 60
        folds = float32((folds + folds[:, ::-1]) / 2)
        plane = np.where(reach < 0.85, 100 + folds, np.where(reach < 1, 190, 0))
        if lesion:
            spot = np.hypot(axis_r[:, None] - 0.2, axis_c[None, :] + 0.4) < 0.25
            plane = np.where(spot, 165 + folds, plane)
            marked[z] = spot
        noisy = plane + 3 * rng.standard_normal((rows, cols))
        # Adding zero turns -0.0 into 0.0, so that equal planes have equal bytes.
        pixels[z] = np.clip(np.rint(noisy * high / 255), 0, high) + 0.0
    head = np.broadcast_to(reach < 1, pixels.shape).copy()
    return Canvas(pixels=pixels, lesion=marked, head=head, low=0.0, high=high)
