"""Everything that a config chooses from, with a line each.

The names are read from the source of the package, where each stands in a decorator
(`@network("mlp")`) above the docstring that describes it, so that listing them imports no JAX. What
a process has registered besides, from files of the user's, is listed too.
"""

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parent.parent
UNALIGNED = ("none", "Leaves b as it was trained")
TFDS = (
    "mnist, fashion_mnist, cifar10, ...",
    "Any image classification or text set of TensorFlow Datasets, prepared once: "
    "python -m llfc_jax.data.tfds.prepare NAME",
)


class Kind(NamedTuple):
    """Where one kind of thing is registered.

    Attributes:
        decorator: what registers it.
        folder: holds the files of those that ship with the package.
        module: the module of the registry.
        registry: the registry's name in that module.
        before: an entry that no file registers, listed first.
        after: an entry that no file registers, listed last.
    """

    decorator: str
    folder: str
    module: str
    registry: str
    before: tuple[str, str] | None = None
    after: tuple[str, str] | None = None


KINDS: Mapping[str, Kind] = {
    "networks": Kind("network", "networks", "networks.registry", "NETWORKS"),
    "data sets": Kind("dataset", "data", "data.registry", "DATASETS", after=TFDS),
    "pairs": Kind("pair_kind", "training/pair_kinds", "training.pair_kinds.registry", "PAIR_KINDS"),
    "alignments": Kind(
        "matching_method", "matching/methods", "matching.registry", "METHODS", before=UNALIGNED
    ),
    "measures": Kind("measure", "measures", "measures.registry", "MEASURES"),
    "tasks": Kind("task", "tasks", "tasks.registry", "TASKS"),
    "trackers": Kind("tracker", "experiments", "experiments.trackers", "TRACKERS"),
}


def choices(configs: Path = Path("configs")) -> dict[str, dict[str, str]]:
    """Returns kind -> name -> one line, of everything that a config chooses from.

    Args:
        configs: directory whose config files are listed by their docstrings, without running them.
    """
    found = {"configs": {str(f): _config_line(f) for f in sorted(configs.glob("*.py"))}}
    for heading, kind in KINDS.items():
        ends = [dict([end]) if end else {} for end in (kind.before, kind.after)]
        named = dict(_registered_in_source(kind)) | dict(_registered_in_process(kind))
        found[heading] = ends[0] | dict(sorted(named.items())) | ends[1]
    return found


def render(groups: Mapping[str, Mapping[str, str]]) -> str:
    """Returns groups as text: a heading, and below it its entries in two columns."""
    parts = []
    for heading, entries in groups.items():
        width = max((len(name) for name in entries), default=0)
        parts.append(heading)
        parts += [f"  {name:<{width}}  {words}" for name, words in entries.items()]
    return "\n".join(parts)


def _registered_in_source(kind: Kind) -> Iterator[tuple[str, str]]:
    """Yields (name, line) of every class or function below the kind's decorator."""
    for file in sorted((PACKAGE / kind.folder).glob("*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                for decorator in node.decorator_list:
                    match decorator:
                        case ast.Call(ast.Name(name), [ast.Constant(str(registered)), *_]):
                            if name == kind.decorator:
                                yield registered, _first_line(ast.get_docstring(node))


def _registered_in_process(kind: Kind) -> Iterator[tuple[str, str]]:
    """Yields (name, line) of what this process has registered, if it has imported the registry."""
    module = sys.modules.get(f"llfc_jax.{kind.module}")
    for name, entry in getattr(module, kind.registry, {}).items():
        yield name, _first_line(getattr(entry, "read", entry).__doc__)


def _config_line(file: Path) -> str:
    """Returns the first line of a config file's docstring, without running the file."""
    try:
        return _first_line(ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))))
    except (OSError, SyntaxError, ValueError):
        return "cannot be read"


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0].removesuffix(".")
