"""Results as charts, tables and one self-contained page.

Everything here works on plain rows (lists of dictionaries) and on the descriptions
`charts.Chart` and `charts.Section`, and without JAX; how a number was made is unknown here.

`figures.draw(chart, rows)` is an Altair chart, `figures.save` a file of it; `table.show(rows,
columns)` prints; `page.write_page(path, ...)` writes the page of a run, `comparison` that of
several, and `stored.rebuild(directory)` makes a page again from what a run stored. All are imported
when first used.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llfc_jax.report import charts, comparison, figures, page, stored, style, table

__all__ = ["charts", "comparison", "figures", "page", "stored", "style", "table"]


def __getattr__(name: str) -> ModuleType:
    """Imports a part when it is first used (PEP 562)."""
    if name in __all__:
        return importlib.import_module(f"llfc_jax.report.{name}")
    raise AttributeError(f"module 'llfc_jax.report' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
