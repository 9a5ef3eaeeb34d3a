"""What a file holds beside a velocity: the quality, and the problem posed on the model."""

from collections.abc import Mapping

import numpy as np

from meta_lrpinn.files import layouts
from meta_lrpinn.files.layouts import Layout
from meta_lrpinn.files.packing import packing
from meta_lrpinn.files.readers import Contents
from meta_lrpinn.physics.grid_values import real_array
from meta_lrpinn.physics.velocity import VelocityModel

QUALITY, SURFACE = "quality", "free_surface"


def quality_of(contents: Contents, layout: Layout) -> np.ndarray | None:
    """Q, one number or on the grid, of a file that holds it."""
    stored = contents.arrays.get(QUALITY)
    if stored is None:
        return None
    values = packing(contents.arrays, QUALITY).unpacked(np.asarray(stored[...]))
    if values.size == 1:
        return values.reshape(())
    return layout.beside(values, contents.labels(QUALITY))


def surface_of(arrays: Mapping[str, np.ndarray]) -> bool | None:
    """Whether the problem of a file has a free surface, where it says so."""
    if SURFACE not in arrays:
        return None
    value = arrays[SURFACE]
    if value.size != 1 or value.item() not in (0, 1):
        raise ValueError(f"{SURFACE} must be 0 or 1, got {value}"[:200])
    return bool(value.item())


def positive(
    contents: Mapping[str, np.ndarray], key: str, unit: str, scale: float = 1.0
) -> float | None:
    """One positive number of a file [unit]; None where there is none."""
    if key not in contents:
        return None
    value = real_array(contents[key], key)
    if value.size != 1:
        raise ValueError(f"{key} must be one number, got shape {value.shape}")
    number = float(value.item()) * scale
    if not (np.isfinite(number) and number > 0):
        raise ValueError(f"{key} must be positive, got {number} {unit}")
    return number


def amplitude_of(contents: Mapping[str, np.ndarray]) -> complex | None:
    """A of the background wavefield, one finite number."""
    value = contents.get("amplitude")
    if value is None:
        return None
    if value.size != 1 or value.dtype.kind not in "fiuc":
        raise ValueError(f"amplitude must be one number, got shape {value.shape}")
    amplitude = complex(value.item())
    if not np.isfinite(amplitude):
        raise ValueError(f"amplitude must be finite, got {amplitude}")
    return amplitude


def background_of(
    contents: Mapping[str, np.ndarray],
    model: VelocityModel,
    source: np.ndarray | None,
    scale: float,
) -> complex | None:
    """One velocity v₀, complex with attenuation; None for the default, which is those at
    several sources."""
    known = contents.get("v0")
    if known is None or source is None or source.ndim == 1 or len(source) != known.size:
        if known is None or not np.iscomplexobj(known):
            return positive(contents, "v0", "km/s", scale)
        if known.size != 1 or not np.all(_is_lossy(known)):
            raise ValueError(f"v0 must be one velocity v/(1 - i/2Q), got {known}"[:200])
        return complex(known.item()) * scale
    values = _lossy_or_real(known) * scale
    if np.all(values == values[0]):
        return background_of({"v0": values[:1]}, model, None, 1.0)
    if not np.allclose(values, model.complex_velocity_at(source), rtol=1e-3):
        raise ValueError("v0 must be one number, or the velocities at the sources")
    return None


def source_of(arrays: Mapping[str, np.ndarray], layout: Layout) -> np.ndarray | None:
    """(ndim,) or (n_sources, ndim) [km]."""
    unit = layout.length_unit
    if "source" in arrays:
        source = real_array(arrays["source"], "source")
        source = source * layouts.length_scale(arrays, "source", unit)
    elif "source_x" in arrays:
        if "source_z" not in arrays:
            raise ValueError("source_x needs source_z beside it")
        columns = [
            real_array(arrays[key], key) * layouts.length_scale(arrays, key, unit)
            for key in ("source_x", "source_y", "source_z")
            if key in arrays
        ]
        try:
            source = np.stack(np.broadcast_arrays(*columns), axis=-1)
        except ValueError:
            raise ValueError(
                "source_x and source_z must be of one length, or one of them a number"
            ) from None
    else:
        return None
    if source.size == 0:
        raise ValueError(f"source holds no point, its shape is {source.shape}")
    if layout.is_up:
        raise ValueError(
            "z holds heights: is the source's a height or a depth? Leave it out of the file"
        )
    return source.astype(np.float64)


def weights_of(
    arrays: Mapping[str, np.ndarray], source: np.ndarray | None
) -> np.ndarray | None:
    """Weights of sources that are fired together, (n_sources,)."""
    if "weights" not in arrays:
        return None
    weights = np.asarray(arrays["weights"])
    if source is None or weights.shape != source.shape[:-1] or weights.ndim != 1:
        raise ValueError(f"weights must be one for each source, got shape {weights.shape}")
    if weights.dtype.kind not in "fiuc" or not np.all(np.isfinite(weights)):
        raise ValueError("weights must be finite numbers")
    return weights


def scattered_of(
    contents: Contents,
    model: VelocityModel,
    source: np.ndarray | None,
    layout: Layout,
    has_source_axis: bool,
) -> np.ndarray | None:
    """The field on the model's grid, with a leading axis where each source has its own."""
    stored = contents.arrays.get("scattered")
    if stored is None:
        return None
    field = np.asarray(stored[...])
    if field.dtype.kind not in "fc":
        raise ValueError("scattered must be an array of complex numbers")
    field = layout.beside(field, contents.labels("scattered"))
    leading = field.shape[:1] if field.ndim > model.ndim else ()
    if source is not None:
        leading = source.shape[:-1] if has_source_axis else ()
    expected = leading + model.shape
    alone = (1,) + model.shape
    if field.shape != expected and {field.shape, expected} != {alone, model.shape}:
        raise ValueError(
            f"scattered must have shape {expected} to fit the model and its sources, "
            f"got {field.shape}"
        )
    if field.size == 0 or not np.all(np.isfinite(field)):
        raise ValueError(f"scattered must be finite and not empty, shape {field.shape}")
    field = field.reshape(expected)
    return field if np.iscomplexobj(field) else field.astype(np.complex64)


def _lossy_or_real(values: np.ndarray) -> np.ndarray:
    if np.iscomplexobj(values) and np.all(_is_lossy(values)):
        return np.ravel(values)
    return real_array(values, "v0").ravel()


def _is_lossy(values: np.ndarray) -> np.ndarray:
    """Whether complex velocities are finite and damp waves."""
    return np.isfinite(values) & (np.real(values) > 0) & (np.imag(values) >= 0)
