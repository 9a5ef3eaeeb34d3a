"""How the package is put together."""

import ast
import importlib
import importlib.metadata
import inspect
import json
import pathlib
import re
import subprocess
import sys

import pytest

import meta_lrpinn as ml

FOLDER = pathlib.Path(ml.__file__).parent
MODULES = sorted(
    ".".join(("meta_lrpinn", *path.relative_to(FOLDER).with_suffix("").parts))
    for path in FOLDER.rglob("*.py")
    if path.name != "__main__.py"
)
# From the ground up; a part imports from its own line's left and from lines before.
ORDER = (
    "runtime",
    "models physics metrics",
    "generators linear",
    "reference files plotting",
    "results",
    "wavefield",
    "learning",
    "solvers",
    "cli",
)
LEVEL = {name: level for level, line in enumerate(ORDER) for name in line.split()}
LEVEL["_version"] = -1
HEAVY = ("jax", "flax", "optax", "scipy", "matplotlib", "orbax")


def part(module):
    """The part that a module belongs to: adapt, of meta_lrpinn.learning.solve."""
    names = module.split(".")
    return names[1] if len(names) > 1 and names[1] != "__init__" else ""


def source(module):
    path = FOLDER.joinpath(*module.split(".")[1:]).with_suffix(".py")
    return path.read_text()


def imports(module):
    """Our modules that a module imports, wherever in it it does."""
    found = set()
    tree = ast.parse(source(module))
    for node in ast.walk(tree):
        # What only a type checker reads is no dependency.
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            for alias in node.names:
                found.add(f"{node.module}.{alias.name}")
    return {name for name in found if name.split(".")[0] == "meta_lrpinn"}


def fresh(script):
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=FOLDER.parent,
    ).stdout.split()


def test_importing_the_package_is_light_and_changes_nothing():
    script = (
        "import sys, meta_lrpinn\n"
        "from meta_lrpinn import cli\n"
        f"print(*[name for name in {HEAVY} if name in sys.modules])"
    )
    assert fresh(script) == []


def test_importing_everything_leaves_jax_as_it_is():
    names = [name.removesuffix(".__init__") for name in MODULES]
    script = (
        "import jax, importlib\n"
        "from jax._src import xla_bridge\n"
        "before = jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision\n"
        f"for name in {names}: importlib.import_module(name)\n"
        "after = jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision\n"
        "print(before == after, after[0], bool(xla_bridge._backends))"
    )
    # No backend either: processes must be able to join others first.
    assert fresh(script) == ["True", "False", "False"]


def test_public_names():
    for name in ml.__all__:
        assert getattr(ml, name).__module__.startswith("meta_lrpinn.")
    assert set(ml.__all__) <= set(dir(ml))
    with pytest.raises(AttributeError, match="nothing"):
        ml.nothing  # noqa: B018
    from meta_lrpinn.models import LRPINN, PINN, FrequencyEmbedding

    assert all(map(inspect.isclass, (LRPINN, PINN, FrequencyEmbedding)))


@pytest.mark.parametrize("module", MODULES)
def test_arrows_point_one_way(module):
    here = part(module)
    if not here:
        return
    for used in {part(name) for name in imports(module)} - {here, ""}:
        assert LEVEL[used] < LEVEL[here], f"{module} imports {used}, which is not below"


@pytest.mark.parametrize("module", [name for name in MODULES if part(name) == "cli"])
def test_the_command_line_has_no_numerics(module):
    assert "jax.numpy" not in source(module)
    assert "scipy" not in source(module)


@pytest.mark.parametrize("module", MODULES)
def test_everything_public_has_a_docstring(module):
    loaded = importlib.import_module(module.removesuffix(".__init__"))
    assert loaded.__doc__, module
    for name, value in vars(loaded).items():
        is_ours = getattr(value, "__module__", None) == loaded.__name__
        if name.startswith("_") or not is_ours:
            continue
        if not (inspect.isfunction(value) or inspect.isclass(value)):
            continue
        assert value.__doc__, f"{module}.{name}"
        if inspect.isclass(value):
            for key, member in vars(value).items():
                function = member.fget if isinstance(member, property) else member
                if inspect.isfunction(function) and not key.startswith("_"):
                    if function.__module__ == loaded.__name__ and is_written(function):
                        assert function.__doc__, f"{module}.{name}.{key}"


def functions(path):
    """(name, lines of the body without its docstring, the line above) of each function."""
    text = path.read_text()
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[ast.get_docstring(node) is not None :]
            length = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            yield node.name, length, lines[node.lineno - 2].strip()


@pytest.mark.parametrize("folder", ["meta_lrpinn", "experiments", "data_gen"])
def test_functions_are_short(folder):
    """A function may be longer where the comment above it, "# Long: ...", says why."""
    for path in (FOLDER.parent / folder).rglob("*.py"):
        for name, length, above in functions(path):
            assert length <= 50 or above.startswith("# Long: "), f"{path}: {name}"


def is_written(function):
    """Whether it stands in a file of ours; decorators write some methods themselves."""
    path = pathlib.Path(inspect.getsourcefile(function) or "")
    return FOLDER in path.parents and function.__name__ not in ("setup",)


def test_version():
    try:
        installed = importlib.metadata.distribution("meta_lrpinn")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package is not installed")
    origin = json.loads(installed.read_text("direct_url.json") or "{}").get("url", "")
    if origin.startswith("file://") and origin != FOLDER.parent.as_uri():
        pytest.skip("another checkout is installed")
    assert installed.version == ml.__version__, "install this checkout again"


def test_the_version_is_that_of_the_changelog_and_the_citation():
    root = FOLDER.parent
    if not (root / "CITATION.cff").exists():
        pytest.skip("there is no checkout around the package")
    assert f"\nversion: {ml.__version__}\n" in (root / "CITATION.cff").read_text()
    (latest,) = re.findall(r"\A# Changelog\n+## (.*)", (root / "CHANGELOG.md").read_text())
    number, development, _ = ml.__version__.partition(".dev")
    assert latest == f"{number} (unreleased)" if development else latest.startswith(number)


def test_requirements_are_bounded():
    try:
        requirements = importlib.metadata.requires("meta_lrpinn")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package is not installed")
    for requirement in requirements:
        assert ">=" in requirement and "<" in requirement, requirement
