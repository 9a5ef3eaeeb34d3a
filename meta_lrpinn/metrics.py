"""Errors of wavefields."""

import numpy as np

from meta_lrpinn.runtime.precision import Array


def relative_l2(prediction: Array, truth: Array) -> float:
    """Relative L2 distance ‖prediction − truth‖ / ‖truth‖.

    Args:
        prediction: Array of any shape.
        truth: Array of the same shape.

    Raises:
        ValueError: if the shapes differ, or the truth is zero.
    """
    prediction, truth = np.asarray(prediction), np.asarray(truth)
    if prediction.shape != truth.shape:
        raise ValueError(f"cannot compare shapes {prediction.shape} and {truth.shape}")
    # A sum over nodes: on a regular grid that is the norm over the area, but for edges.
    norm = np.linalg.norm(truth)
    if norm == 0:
        raise ValueError("the reference field is zero; relative error is undefined")
    return float(np.linalg.norm(prediction - truth) / norm)
