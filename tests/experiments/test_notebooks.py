"""The notebooks run top to bottom beside a pretended TPU, with small settings."""

import json
import re
import sys
from pathlib import Path

import jax
import pytest
from jax import export

from meta_lrpinn.learning import devices, objectives, task_sets, training
from meta_lrpinn.learning import networks as learned
from meta_lrpinn.learning.configs import MultiStepMAML
from meta_lrpinn.models import initial_parameters

FOLDER = Path(__file__).parents[2] / "experiments" / "colab"
# Of each notebook: small parameters, and what holds of its variables in the end.
NOTEBOOKS = {
    "quickstart": (
        "SIZE = 41\nFREQUENCY = 4.0",
        "import chex\n"
        "assert error < 0.03\n"
        "chex.assert_shape(several.scattered, (5, 41, 41))",
    ),
    "own_model": (
        "VELOCITY, SPACING, FREQUENCY, SIDE = None, 0.025, 3.0, 1.0\n"
        "STEPS, POINTS = 4, 144",
        "assert len(field.history) == len(scratch.history) > 1\n"
        "assert max(half.ranks) == max(network.ranks) // 2",
    ),
    "meta_training": (
        "ITERATIONS, TASKS_PER_BATCH, INNER_STEPS, POINTS = 2, 2, 2, 64\n"
        "WIDTH, DEPTH, RANK = 16, 2, 4\n"
        "FREQUENCY, STEPS, FOLDER = 5.0, 2, 'run'",
        "assert trained.iterations == 2 and trained.initialisation.is_dir()\n"
        "assert [row['step'] for row in rows] == [0, 1, 2]\n"
        "assert len(fields['meta-trained'].history) == len(fields['random'].history) > 1\n"
        "assert config.training.task_axis == 'vmap'",
    ),
}


def load(name):
    return json.loads((FOLDER / f"{name}.ipynb").read_text())


def cells(name):
    """Tag and source of the code cells; an empty text where there is no tag."""
    return [
        ((cell["metadata"].get("tags") or [""])[0], "".join(cell["source"]))
        for cell in load(name)["cells"]
        if cell["cell_type"] == "code"
    ]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_runs_beside_a_tpu(name, beside_a_tpu, tmp_path):
    parameters, checks = NOTEBOOKS[name]
    sources = [
        parameters if tag == "parameters" else source
        for tag, source in cells(name)
        if tag != "install"
    ]
    beside_a_tpu("\n".join([*sources, checks]), tmp_path)


def test_the_training_step_lowers_for_tpus(monkeypatch):
    """At the notebook's own settings, and without a number of double precision."""
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    namespace = {}
    for tag, source in cells("meta_training"):
        if tag in ("parameters", "configuration"):
            exec(compile(source, "meta_training.ipynb", "exec"), namespace)
    config = namespace["config"]
    assert isinstance(config.training.algorithm, MultiStepMAML)
    assert config.training.task_axis == "vmap"
    model = learned.make_network(config.network)
    objective = objectives.make_objective(config.objective, model)
    mesh = devices.task_mesh(jax.devices()[:1])
    update = training.make_update(config.training, objective, mesh)
    params = initial_parameters(model, jax.random.key(0))
    batch = task_sets.streaming_sampler(config.tasks, config.training)(0, 0)
    exported = export.export(update, platforms=["tpu"])(
        training.initial_state(config.training, params), *batch
    )
    assert exported.platforms == ("tpu",)
    assert not re.search(r"[x<]f64>", exported.mlir_module())


def installed(source, monkeypatch, devices):
    """What an install cell asks pip for on Colab, where these files of devices exist."""
    asked = []
    source = re.sub(
        r"^(\s*)%pip (.*)$",
        lambda line: f"{line[1]}pip(f'''{line[2]}''')",
        source.replace("$JAX", "{JAX}").replace("$REPOSITORY", "{REPOSITORY}"),
        flags=re.MULTILINE,
    )
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    monkeypatch.setattr("glob.glob", lambda pattern: devices.get(pattern, []))
    monkeypatch.setattr("os.path.exists", lambda path: path in devices)
    exec(compile(source, "install", "exec"), {"pip": asked.append})
    return asked


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_installs_the_build_of_jax_for_the_runtime(name, monkeypatch):
    (tag, source), (following, _), *_ = cells(name)
    assert (tag, following) == ("install", "parameters")
    for variable in ("COLAB_TPU_ADDR", "TPU_NAME"):
        monkeypatch.delenv(variable, raising=False)

    def asked(devices):
        (command,) = installed(source, monkeypatch, devices)
        return re.search('"(.*)"', command)[1]

    assert asked({}) == "jax"
    assert asked({"/dev/nvidia0": ["/dev/nvidia0"]}) == "jax[cuda12]"
    assert asked({"/dev/accel*": ["/dev/accel0"]}) == "jax[tpu]"
    assert asked({"/dev/vfio/[0-9]*": ["/dev/vfio/0"]}) == "jax[tpu]"
    monkeypatch.setenv("TPU_NAME", "local")
    assert asked({}) == "jax[tpu]"


@pytest.mark.parametrize(
    ("name", "accelerator"),
    [("quickstart", None), ("own_model", "GPU"), ("meta_training", "TPU")],
)
def test_says_which_runtime_it_wants_and_links_to_what_exists(name, accelerator):
    notebook = load(name)
    texts = [
        "".join(cell["source"])
        for cell in notebook["cells"]
        if cell["cell_type"] == "markdown"
    ]
    assert "**Runtime:**" in texts[0]
    assert notebook["metadata"].get("accelerator") == accelerator
    for target in re.findall(r"\]\(([^)#:]+)\)", "\n".join(texts)):
        assert (FOLDER / target).is_file(), target
