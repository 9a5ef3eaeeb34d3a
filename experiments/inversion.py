"""Full-waveform inversion from low to high frequency, by the adjoint of the exact solve.

Surface data of the true model come from the finite-difference reference solver, a
different discretisation; the plane-wave solver and `jax.grad` invert them, starting from
a velocity that depends on depth alone. L-BFGS at each frequency starts from the result
of the one below.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
import scipy.optimize
import tqdm
from absl import flags
from matplotlib.figure import Figure

import meta_lrpinn as ml
from experiments import common
from meta_lrpinn import generators, scripts
from meta_lrpinn import problem as problems
from meta_lrpinn.linear import lattice as lattices
from meta_lrpinn.solvers import survey

FLAGS = flags.FLAGS
NAME = "inversion"
flags.DEFINE_enum("model", "layered", ("layered", "marmousi"), "True model.")
flags.DEFINE_integer("sources", 12, "Sources along the top.", lower_bound=1)
flags.DEFINE_integer("receivers", 60, "Receivers along the top.", lower_bound=2)
flags.DEFINE_integer("iterations", 20, "L-BFGS iterations per frequency.")
flags.DEFINE_float("smoothing", 0.04, "Gaussian smoothing of the gradient, km.")
flags.DEFINE_float("wavenumber_ratio", 1.25, "Wavenumbers, relative to the slowest wave.")

_DEPTH = 0.025  # km, of sources and receivers
_BOUNDS = (1.45, 5.0)  # km/s


def true_model() -> ml.VelocityModel:
    """The model to be found."""
    if FLAGS.model == "layered":
        return generators.builtin("layered")
    path = Path(FLAGS.data) / "velocity_models.npz"
    window = ml.load_velocity(path, "marmousi").window(x=(3.0, 6.0), z=(0.0, 2.0))
    return window.smoothed(0.02).resampled(0.025)


def starting_model(truth: ml.VelocityModel) -> ml.VelocityModel:
    """Velocity linear in depth below the first 0.2 km, which are known."""
    z = truth.axes()[0] - truth.origin[-1]
    top = truth.velocity[: np.searchsorted(z, 0.2)].mean()
    ramp = np.clip((z - 0.2) / (z[-1] - 0.2), 0, 1)
    velocity = top + (np.quantile(truth.velocity, 0.97) - top) * ramp
    start = np.repeat(velocity[:, None], truth.shape[1], axis=1)
    known = z < 0.2
    start[known] = truth.velocity[known]
    return truth.replace_velocity(start)


def observe(truth: ml.VelocityModel, frequency: float, sources, receivers):
    """Scattered data (n_sources, n_receivers) of the true model, finite differences."""
    field = ml.solve(truth, frequency, sources, ml.FiniteDifferences(tolerance=None))
    return np.asarray(field.at(receivers))


def survey_lines(truth: ml.VelocityModel) -> tuple[np.ndarray, np.ndarray]:
    """Sources and receivers along the top, (n, 2) each [km]."""
    left, right = truth.lower[0], truth.upper[0]

    def line(number, margin):
        across = np.linspace(left + margin, right - margin, number)
        return np.stack([across, np.full(number, _DEPTH)], axis=-1)

    return line(FLAGS.sources, 0.1), line(FLAGS.receivers, 0.025)


def make_acquisition(
    truth: ml.VelocityModel,
    start: ml.VelocityModel,
    frequency: float,
    sources: np.ndarray,
    receivers: np.ndarray,
) -> ml.Acquisition:
    """Sources and receivers, and a lattice for every velocity within the bounds.

    The layer is that of the starting model, the lattice resolves the slowest waves that
    the bounds allow, and the velocities at the sources are known.
    """
    problem = survey.shared_problem([start], frequency, sources)
    slowest = truth.replace_velocity(np.full(truth.shape, _BOUNDS[0]))
    problem = problem.replace(model=slowest)
    return ml.Acquisition(
        problem=problem,
        lattice=lattices.make_lattice(problem, FLAGS.wavenumber_ratio),
        sources=sources,
        background_velocities=np.array(
            [problems.velocity_at(truth, source) for source in sources]
        ),
        receivers=receivers,
    )


@jax.jit
def misfit(
    velocity: jax.Array, acquisition: ml.Acquisition, observed: jax.Array
) -> jax.Array:
    """Squared distance of the predicted data from the observed, over that of zero."""
    predicted = ml.receiver_data(acquisition, velocity)
    difference = jnp.sum(jnp.abs(predicted - observed) ** 2)
    return difference / jnp.sum(jnp.abs(observed) ** 2)


_value_and_gradient = jax.jit(jax.value_and_grad(misfit))


def invert(
    truth: ml.VelocityModel, start: ml.VelocityModel, frequencies: list[float]
) -> tuple[np.ndarray, list[dict[str, float]]]:
    """The inverted velocity (nz, nx) and a record per frequency."""
    sources, receivers = survey_lines(truth)
    is_known = truth.axes()[0] - truth.lower[-1] < 0.2
    velocity = np.asarray(start.velocity, float)
    records = []
    for frequency in tqdm.tqdm(frequencies, unit="frequency"):
        observed = observe(truth, frequency, sources, receivers)
        with jax.enable_x64(True):
            acquisition = make_acquisition(truth, start, frequency, sources, receivers)

            def evaluate(x, acquisition=acquisition, observed=observed):
                velocity = x.reshape(truth.shape)
                value, slope = _value_and_gradient(velocity, acquisition, observed)
                slope = np.array(slope)
                slope[is_known] = 0
                if FLAGS.smoothing:
                    width = FLAGS.smoothing / np.array(truth.spacing)
                    slope = scipy.ndimage.gaussian_filter(slope, width)
                return float(value), slope.ravel()

            before = float(misfit(velocity, acquisition, observed))
            result = scipy.optimize.minimize(
                evaluate,
                velocity.ravel(),
                jac=True,
                method="L-BFGS-B",
                bounds=[_BOUNDS] * velocity.size,
                options={"maxiter": FLAGS.iterations},
            )
        velocity = result.x.reshape(truth.shape)
        records.append(
            {
                "frequency": frequency,
                "unknowns": acquisition.lattice.number,
                "evaluations": result.nfev,
                "misfit_before": before,
                "misfit_after": float(result.fun),
                "correlation": correlation(velocity, truth.velocity),
            }
        )
    return velocity, records


def correlation(velocity: np.ndarray, truth: np.ndarray) -> float:
    """Correlation coefficient of two models."""
    return float(np.corrcoef(np.ravel(velocity), np.ravel(truth))[0, 1])


def draw(truth, start, velocity) -> Figure:
    """True, starting and inverted model, and a profile through the middle."""
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    panels = figure.subplots(1, 4)
    limits = {"vmin": truth.minimum, "vmax": truth.maximum, "cmap": "cividis"}
    extent = (truth.lower[0], truth.upper[0], truth.upper[1], truth.lower[1])
    titles = ("True", "Start", "Inverted")
    for axes, title, values in zip(
        panels, titles, (truth.velocity, start.velocity, velocity), strict=False
    ):
        score = correlation(values, truth.velocity)
        image = axes.imshow(values, extent=extent, **limits)
        axes.set(title=f"{title} (correlation {score:.3f})", xlabel="x (km)")
    panels[0].set_title("True")
    panels[0].set_ylabel("z (km)")
    figure.colorbar(image, ax=panels[:3], label="km/s", shrink=0.8)
    middle, z = truth.shape[1] // 2, truth.axes()[0]
    styles = (("True", truth.velocity, "0.2"), ("Start", start.velocity, "#999999"))
    for name, values, color in (*styles, ("Inverted", velocity, "#d55e00")):
        panels[3].plot(values[:, middle], z, color=color, label=name)
    panels[3].invert_yaxis()
    panels[3].set(title="Profile through the middle", xlabel="km/s")
    panels[3].legend(frameon=False)
    return figure


def main() -> None:
    """Inverts, and writes the models, the table and the figure."""
    truth = true_model()
    start = starting_model(truth)
    frequencies = common.frequencies((3, 4, 5, 6, 7, 8))
    velocity, records = invert(truth, start, frequencies)
    out = common.folder(NAME)
    np.savez(out / f"{FLAGS.model}.npz", velocity=velocity, spacing=truth.spacing)
    rows = [list(record.values()) for record in records]
    start_score = correlation(start.velocity, truth.velocity)
    heading = f"Correlation with the truth: start {start_score:.3f}, by frequency:\n\n"
    common.save_report(NAME, heading + common.table(list(records[0]), rows))
    draw(truth, start, velocity).savefig(out / f"{FLAGS.model}.png", dpi=130)


if __name__ == "__main__":
    scripts.run(main)
