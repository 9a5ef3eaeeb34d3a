"""Full-waveform inversion from low to high frequency, from a start that is wrong.

Data of the true model, from sources at the top to receivers there and in wells, come from
the finite-difference reference solver, a different discretisation, with noise added; the
plane-wave solver and `jax.grad` invert them. Only the top is known: below it the start is
linear in depth and too slow throughout. The objective is the misfit of the data and the
total variation of the velocity; L-BFGS at each frequency starts from the result of the one
below, and changes the model by what is smooth over a fraction of the wavelength.
"""

import csv
import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
import tqdm
from absl import flags
from flax import struct
from matplotlib.figure import Figure

import meta_lrpinn as ml
from experiments import common
from meta_lrpinn import generators
from meta_lrpinn.runtime import scripts

FLAGS = flags.FLAGS
NAME = "inversion"
flags.DEFINE_list("models", ["layered"], "True models, of layered and marmousi.")
flags.DEFINE_integer("sources", 12, "Sources along the top.", lower_bound=1)
flags.DEFINE_integer(
    "receivers", 60, "Receivers along the top; half as many in a well.", lower_bound=2
)
flags.DEFINE_integer("wells", 2, "Wells with receivers: 0, 1 (right) or 2.", 0, 2)
flags.DEFINE_integer("iterations", 20, "L-BFGS iterations per frequency.")
flags.DEFINE_float("wrong_by", 0.15, "How much too slow the start is, as a fraction.")
flags.DEFINE_float("noise", 0.1, "Of the data, relative to their root mean square.")
flags.DEFINE_float("variation", 0.03, "Weight of the total variation.")
flags.DEFINE_float("blur", 0.15, "Width of the Gaussian, in wavelengths of 2 km/s.")

FREQUENCIES = (3, 4, 5, 6, 8, 10)
_DEPTH = 0.025  # km, of sources and receivers
_KNOWN = 0.2  # km, depth to which the velocity is known
_BOUNDS = (1.45, 5.0)  # km/s
_SMALL_STEP = 0.02  # km/s; smaller steps of the velocity cost their square


class Mapping(struct.PyTreeNode):
    """From what L-BFGS moves, (nz, nx), to a velocity within the bounds."""

    start: jax.Array  # (nz, nx) [km/s], where the parameters are zero
    blurs: tuple[jax.Array, jax.Array]  # Gaussians along z, (nz, nz), and x, (nx, nx)
    is_free: jax.Array  # (nz, 1), false where the velocity is known

    def __call__(self, parameters: jax.Array) -> jax.Array:
        """Velocity (nz, nx) [km/s]."""
        along_z, along_x = self.blurs
        change = along_z @ parameters @ along_x.T
        return jnp.clip(self.start + self.is_free * change, *_BOUNDS)


@dataclasses.dataclass(frozen=True)
class Inversion:
    """What an inversion gives."""

    truth: ml.VelocityModel
    start: ml.VelocityModel
    velocity: np.ndarray  # (nz, nx) [km/s]
    records: list[dict[str, float]]  # a row for each iteration


def true_model(name: str) -> ml.VelocityModel:
    """The model to be found."""
    if name == "layered":
        return generators.builtin("layered")
    path = Path(FLAGS.data) / "velocity_models.npz"
    window = ml.load_velocity(path, name).window(x=(3.0, 6.0), z=(0.0, 2.0))
    return window.smoothed(0.02).resampled(0.025)


def starting_model(truth: ml.VelocityModel) -> ml.VelocityModel:
    """Linear in depth, fitted to the truth and then too slow by --wrong_by."""
    depth = truth.axes()[0] - truth.lower[-1]
    line = np.polynomial.Polynomial.fit(depth, truth.velocity.mean(axis=1), 1)
    wrong = np.clip((1 - FLAGS.wrong_by) * line(depth), *_BOUNDS)
    start = np.repeat(wrong[:, None], truth.shape[1], axis=1)
    known = depth < _KNOWN
    start[known] = truth.velocity[known]
    return truth.replace_velocity(start)


def survey_lines(truth: ml.VelocityModel) -> tuple[np.ndarray, np.ndarray]:
    """Sources along the top, receivers there and down the wells, (n, 2) each [km].

    Waves that cross the model reach the wells; those that come back to the top alone tell
    little of a velocity that is wrong throughout.
    """
    left, right = truth.lower[0], truth.upper[0]
    down = np.linspace(_KNOWN, truth.upper[-1] - 0.025, FLAGS.receivers // 2)
    wells = [
        np.stack([np.full(len(down), x), down], axis=-1)
        for x in (right - 0.05, left + 0.05)[: FLAGS.wells]
    ]

    def line(number, margin):
        across = np.linspace(left + margin, right - margin, number)
        return np.stack([across, np.full(number, _DEPTH)], axis=-1)

    receivers = [line(FLAGS.receivers, 0.025), *wells]
    return line(FLAGS.sources, 0.1), np.concatenate(receivers)


def observe(
    truth: ml.VelocityModel, frequency: float, sources: np.ndarray, receivers: np.ndarray
) -> np.ndarray:
    """Noisy scattered data (n_sources, n_receivers) of the true model."""
    field = ml.solve(truth, frequency, sources, ml.FiniteDifferences(tolerance=None))
    data = np.asarray(field.at(receivers))
    rng = np.random.default_rng(round(1000 * frequency))
    noise = rng.normal(size=(*data.shape, 2)) @ np.array([1, 1j]) / np.sqrt(2)
    return data + FLAGS.noise * np.sqrt(np.mean(np.abs(data) ** 2)) * noise


def make_acquisition(
    truth: ml.VelocityModel,
    frequency: float,
    sources: np.ndarray,
    receivers: np.ndarray,
) -> ml.Acquisition:
    """A lattice and a layer for every velocity within the bounds.

    Velocities at the sources are known: they lie in the part that is.
    """
    extremes = np.where(np.arange(truth.shape[1]) % 2, *_BOUNDS)
    velocity = np.broadcast_to(extremes, truth.shape).copy()
    known = truth.axes()[0] - truth.lower[-1] < _KNOWN
    velocity[known] = truth.velocity[known]
    bounds = truth.replace_velocity(velocity)
    return ml.make_acquisition(bounds, frequency, sources, receivers, wavenumber_ratio=1.3)


def make_mapping(start: ml.VelocityModel, velocity: np.ndarray, width: float) -> Mapping:
    """Changes of a velocity (nz, nx) that are smooth over a width [km]."""
    depth = start.axes()[0] - start.lower[-1]

    def blur(axis):
        distance = (axis[:, None] - axis[None]) / width
        matrix = np.exp(-0.5 * distance**2)
        return jnp.asarray(matrix / matrix.sum(axis=1, keepdims=True))

    return Mapping(
        start=jnp.asarray(velocity),
        blurs=tuple(blur(axis) for axis in start.axes()),
        is_free=jnp.asarray(depth >= _KNOWN)[:, None],
    )


def misfit(
    velocity: jax.Array, acquisition: ml.Acquisition, observed: jax.Array
) -> jax.Array:
    """Squared distance of the predicted data from the observed, over that of zero."""
    predicted = ml.receiver_data(acquisition, velocity)
    difference = jnp.sum(jnp.abs(predicted - observed) ** 2)
    return difference / jnp.sum(jnp.abs(observed) ** 2)


def total_variation(velocity: jax.Array) -> jax.Array:
    """Mean length of the steps between neighbours [km/s], rounded at small ones."""
    down = jnp.diff(velocity, axis=0)[:, :-1]
    across = jnp.diff(velocity, axis=1)[:-1]
    squares = down**2 + across**2 + _SMALL_STEP**2
    return jnp.mean(jnp.sqrt(squares)) - _SMALL_STEP


@jax.jit
def objective(
    parameters: jax.Array,
    mapping: Mapping,
    acquisition: ml.Acquisition,
    observed: jax.Array,
    weight: float,
) -> tuple[jax.Array, jax.Array]:
    """Misfit plus weighted total variation, and the misfit."""
    velocity = mapping(parameters)
    data = misfit(velocity, acquisition, observed)
    return data + weight * total_variation(velocity), data


_value_and_gradient = jax.jit(jax.value_and_grad(objective, has_aux=True))


def invert(
    truth: ml.VelocityModel, start: ml.VelocityModel, frequencies: list[float]
) -> Inversion:
    """Inverts the data of a model, frequency after frequency."""
    sources, receivers = survey_lines(truth)
    velocity = np.asarray(start.velocity, float)
    records: list[dict[str, float]] = []
    for frequency in tqdm.tqdm(frequencies, unit="frequency"):
        observed = observe(truth, frequency, sources, receivers)
        with jax.enable_x64(True):
            acquisition = make_acquisition(truth, frequency, sources, receivers)
            mapping = make_mapping(start, velocity, FLAGS.blur * 2.0 / frequency)
            seen = {}  # the misfit of parameters that were evaluated last

            def evaluate(x, problem=(mapping, acquisition, observed), seen=seen):
                parameters = jnp.asarray(x.reshape(truth.shape))
                (value, data), slope = _value_and_gradient(
                    parameters, *problem, FLAGS.variation
                )
                seen[x.tobytes()] = float(data)
                return float(value), np.asarray(slope).ravel()

            def record(x, mapping=mapping, seen=seen, frequency=frequency):
                found = np.asarray(mapping(jnp.asarray(x.reshape(truth.shape))))
                records.append(
                    {
                        "iteration": len(records) + 1,
                        "frequency": frequency,
                        "misfit": seen[x.tobytes()],
                        **scores(found, truth),
                    }
                )

            result = scipy.optimize.minimize(
                evaluate,
                np.zeros(velocity.size),
                jac=True,
                method="L-BFGS-B",
                callback=record,
                options={"maxiter": FLAGS.iterations},
            )
            velocity = np.asarray(mapping(jnp.asarray(result.x.reshape(truth.shape))))
    return Inversion(truth, start, velocity, records)


def scores(velocity: np.ndarray, truth: ml.VelocityModel) -> dict[str, float]:
    """Error and correlation of a velocity below what is known."""
    unknown = truth.axes()[0] - truth.lower[-1] >= _KNOWN
    found, true = velocity[unknown].ravel(), truth.velocity[unknown].ravel()
    return {
        "model_error": ml.relative_l2(found, true),
        "correlation": float(np.corrcoef(found, true)[0, 1]),
    }


def summary(name: str, inversion: Inversion) -> list[list]:
    """Rows of the table: the start, and the end of each frequency."""
    start = scores(inversion.start.velocity, inversion.truth)
    rows = [[name, "start", "", "", *_shown(start)]]
    for frequency in dict.fromkeys(r["frequency"] for r in inversion.records):
        own = [r for r in inversion.records if r["frequency"] == frequency]
        misfits = [f"{100 * own[i]['misfit'] ** 0.5:.3g} %" for i in (0, -1)]
        rows.append([name, f"{frequency:g} Hz", *misfits, *_shown(own[-1])])
    return rows


def _shown(record: dict[str, float]) -> tuple[str, str]:
    return f"{100 * record['model_error']:.3g} %", f"{record['correlation']:.3f}"


def draw(inversion: Inversion) -> Figure:
    """True, starting and inverted model, a profile, and the curves of the errors."""
    truth, start = inversion.truth, inversion.start
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    panels = figure.subplots(2, 3)
    limits = {"vmin": truth.minimum, "vmax": truth.maximum, "cmap": "cividis"}
    extent = (truth.lower[0], truth.upper[0], truth.upper[1], truth.lower[1])
    shown = {
        "True": truth.velocity,
        "Start": start.velocity,
        "Inverted": inversion.velocity,
    }
    for axes, (title, values) in zip(panels[0], shown.items(), strict=True):
        image = axes.imshow(values, extent=extent, **limits)
        error = scores(values, truth)["model_error"]
        label = title if title == "True" else f"{title} (error {100 * error:.1f} %)"
        axes.set(title=label, xlabel="x (km)")
    panels[0, 0].set_ylabel("z (km)")
    figure.colorbar(image, ax=panels[0], label="km/s", shrink=0.8)
    middle, z = truth.shape[1] // 2, truth.axes()[0]
    colours = ("0.2", "#999999", "#d55e00")
    for (title, values), colour in zip(shown.items(), colours, strict=True):
        panels[1, 0].plot(values[:, middle], z, color=colour, label=title)
    panels[1, 0].invert_yaxis()
    panels[1, 0].set(title="Profile through the middle", xlabel="km/s", ylabel="z (km)")
    panels[1, 0].legend(frameon=False)
    names = {"misfit": "Misfit of the data", "model_error": "Error of the velocity"}
    for axes, (name, title) in zip(panels[1, 1:], names.items(), strict=True):
        for frequency in dict.fromkeys(r["frequency"] for r in inversion.records):
            own = [r for r in inversion.records if r["frequency"] == frequency]
            steps = [r["iteration"] for r in own]
            axes.plot(steps, [r[name] for r in own], label=f"{frequency:g} Hz")
        axes.set(title=title, xlabel="iteration")
    panels[1, 1].set_yscale("log")
    panels[1, 1].legend(frameon=False, ncols=2)
    return figure


def main() -> None:
    """Inverts, and writes the models, the histories, the table and the figures."""
    rows = []
    out = common.folder(NAME)
    for name in FLAGS.models:
        truth = true_model(name)
        inversion = invert(truth, starting_model(truth), common.frequencies(FREQUENCIES))
        np.savez(out / f"{name}.npz", velocity=inversion.velocity, spacing=truth.spacing)
        with open(out / f"{name}.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, list(inversion.records[0]))
            writer.writeheader()
            writer.writerows(inversion.records)
        rows += summary(name, inversion)
        draw(inversion).savefig(out / f"{name}.png", dpi=130)
    columns = ("model", "after", "first misfit", "last misfit", "error", "correlation")
    common.save_report(
        NAME,
        common.table(columns, rows)
        + f"\n\nMisfits are relative L2 distances of data with {100 * FLAGS.noise:g} % "
        "noise; errors, relative L2, and correlations are of the velocity below "
        f"{_KNOWN:g} km. {FLAGS.sources} sources and {FLAGS.receivers} receivers at "
        f"{_DEPTH:g} km, receivers in {FLAGS.wells} wells; at most "
        f"{FLAGS.iterations} iterations a frequency.",
    )


if __name__ == "__main__":
    scripts.run(main)
