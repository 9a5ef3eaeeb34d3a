"""Overthrust: adaptation to a model unlike those of meta-training.

The paper's claim: what was meta-learned on layered models carries over to a part of
Overthrust, smoothed, at frequencies up to the highest of training. Measured are error
and loss along the adaptation, by step and by second, on a window of 2.25 x 2.25 km
through its faulted anticline, smoothed and as it is, beside solves that need no
adaptation; and at one frequency the wavefields themselves.

By default 4 frequencies, 2 models, 3 contenders (whether the hypernetwork is kept is
left to `layered`), 3 seeds and 500 steps of 1,600 points, errors of the networks' own
output: about two hours on one core. The model comes from the data folder.
"""

import functools

import numpy as np
from absl import flags
from matplotlib.figure import Figure

import meta_lrpinn as ml
from experiments import common, study
from meta_lrpinn.runtime import scripts

FLAGS = flags.FLAGS
flags.DEFINE_float("overthrust_left", 6.5, "Where the window begins, km.")
flags.DEFINE_float(
    "overthrust_smoothing", 0.1, "Of the smoothed model, km.", lower_bound=0.0
)
flags.DEFINE_float("shown_frequency", None, "Of the panels; default: the middle one.")

NAME = "overthrust"
FREQUENCIES = (3, 4, 6, 8)
STEPS = 500


def make_case(smoothing: float, frequency: float) -> study.Case:
    """The window, smoothed or not."""
    model = study.square_window("overthrust", FLAGS.overthrust_left, 0.0, smoothing)
    return study.known_case(model, frequency)


def make_cases(frequencies: list[float]) -> dict[str, functools.partial]:
    """A case per model and frequency, made when it is needed."""
    cached = functools.cache(make_case)
    models = {"smoothed": FLAGS.overthrust_smoothing, "as it is": 0.0}
    return {
        f"Overthrust {model}, {f:g} Hz": functools.partial(cached, smoothing, f)
        for model, smoothing in models.items()
        for f in frequencies
    }


def wavefields(cases: dict[str, study.Case], steps: int) -> Figure:
    """Real parts of δu by three methods, and what adaptation leaves, a row per case."""
    figure = Figure(figsize=(15, 3.2 * len(cases)), layout="constrained")
    panels = figure.subplots(len(cases), 5, squeeze=False)
    for row, (name, case) in zip(panels, cases.items(), strict=True):
        position = (case.model, case.frequency, case.source)
        waves = ml.solve(*position).scattered
        meta = study.Contender(study.meta_start)
        settings = meta.settings(study.METHOD, case.frequency, steps, seed=0)
        adapted = ml.solve(*position, settings).scattered
        truth = case.scattered
        limit = np.quantile(np.abs(truth.real), 0.99)
        fields = {
            "finite differences": truth,
            f"plane waves, {_error(waves, truth)}": waves,
            f"Meta-LRPINN, {steps} steps, {_error(adapted, truth)}": adapted,
            "Meta-LRPINN less finite differences": adapted - truth,
        }
        left, bottom = case.model.lower, case.model.upper
        extent = (left[0], bottom[0], bottom[1], left[1])
        image = row[0].imshow(case.model.velocity, extent=extent, cmap="viridis")
        figure.colorbar(image, ax=row[0], label="km/s")
        row[0].set_title(name, fontsize=9)
        for axes, (title, field) in zip(row[1:], fields.items(), strict=True):
            image = axes.imshow(
                field.real, extent=extent, cmap="RdBu_r", vmin=-limit, vmax=limit
            )
            axes.set_title(title, fontsize=9)
        figure.colorbar(image, ax=row[-1], label="Re δu")
        row[0].set_ylabel("z, km")
    for axes in panels[-1]:
        axes.set_xlabel("x, km")
    return figure


def _error(field: np.ndarray, truth: np.ndarray) -> str:
    return f"{100 * ml.relative_l2(field, truth):.3g} %"


def main() -> None:
    """Measures what is missing, then writes tables and figures."""
    frequencies = common.frequencies(FREQUENCIES)
    cases = make_cases(frequencies)
    steps = FLAGS.steps or STEPS
    chosen = study.contenders()
    chosen.pop("Meta-LRPINN, hypernetwork kept", None)
    curves = study.run(NAME, cases, chosen, steps)
    window = (
        f"Window from x = {FLAGS.overthrust_left:g} km; smoothed: slowness by a "
        f"Gaussian of {1000 * FLAGS.overthrust_smoothing:g} m."
    )
    study.publish(NAME, cases, curves, window)
    shown = FLAGS.shown_frequency or sorted(frequencies)[len(frequencies) // 2]
    both = {name: make() for name, make in make_cases([shown]).items()}
    wavefields(both, steps).savefig(common.folder(NAME) / "wavefields.png", dpi=150)


if __name__ == "__main__":
    scripts.run(main)
