"""Everything that a config chooses from, with a line each."""

import ast
from collections.abc import Mapping
from pathlib import Path

from llfc_jax.experiments.settings import UNALIGNED
from llfc_jax.matching import METHODS
from llfc_jax.measures import REGISTRY as MEASURES
from llfc_jax.networks import NETWORKS

DATA = {
    "digits": "1,797 handwritten digits, 8x8, embedded in the package",
    "npz": "your own arrays: x_train, y_train, x_test, y_test in config.data.path",
    "mnist, fashion_mnist, cifar10, ...": "any image classification set of TensorFlow Datasets, "
    "prepared once: python -m llfc_jax.data.tfds.prepare NAME",
}


def choices(configs: Path = Path("configs")) -> dict[str, dict[str, str]]:
    """Returns kind -> name -> one line, of everything that a config chooses from.

    Args:
        configs: directory whose config files are listed by their docstrings, without running them.
    """
    return {
        "configs": {str(file): _config_line(file) for file in sorted(configs.glob("*.py"))},
        "networks": {name: _first_line(cls.__doc__) for name, cls in sorted(NETWORKS.items())},
        "data sets": DATA,
        "alignments": {UNALIGNED: "b as it was trained"}
        | {name: _first_line(cls.__doc__) for name, cls in METHODS.items()},
        "measures": {name: cls.section.title for name, cls in MEASURES.items()},
    }


def render(groups: Mapping[str, Mapping[str, str]]) -> str:
    """Returns groups as text: a heading, and below it its entries in two columns."""
    parts = []
    for heading, entries in groups.items():
        width = max((len(name) for name in entries), default=0)
        parts.append(heading)
        parts += [f"  {name:<{width}}  {words}" for name, words in entries.items()]
    return "\n".join(parts)


def _config_line(file: Path) -> str:
    """Returns the first line of a config file's docstring, without running the file."""
    try:
        return _first_line(ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))))
    except (OSError, SyntaxError, ValueError):
        return "cannot be read"


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0].removesuffix(".")
