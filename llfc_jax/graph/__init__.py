"""A network is its trace: name its sites, read them, write them, evaluate them anew."""

from llfc_jax.graph.graph import Graph, Values, features, in_layout, rows, trace
from llfc_jax.graph.sites import Site
from llfc_jax.graph.trace import Apply, Equation, Program

__all__ = [
    "Apply",
    "Equation",
    "Graph",
    "Program",
    "Site",
    "Values",
    "features",
    "in_layout",
    "rows",
    "trace",
]
