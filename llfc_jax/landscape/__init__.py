"""The loss around modes: curves of low loss between two, planes and simplices through more."""

from llfc_jax.landscape.figures import draw_curve, draw_plane
from llfc_jax.landscape.fit import CurveOptions, FittedCurve, fit_curve, fit_curves
from llfc_jax.landscape.measure import measure_curve
from llfc_jax.landscape.mixtures import MixtureResult, measure_mixtures
from llfc_jax.landscape.plane import (
    Plane,
    PlaneResult,
    measure_plane,
    plane_through,
    principal_plane,
    random_plane,
)
from llfc_jax.landscape.points import PointOptions
from llfc_jax.landscape.simplex import SimplexResult, measure_simplex
from llfc_jax.pair import Curve

__all__ = [
    "Curve",
    "CurveOptions",
    "FittedCurve",
    "MixtureResult",
    "Plane",
    "PlaneResult",
    "PointOptions",
    "SimplexResult",
    "draw_curve",
    "draw_plane",
    "fit_curve",
    "fit_curves",
    "measure_curve",
    "measure_mixtures",
    "measure_plane",
    "measure_simplex",
    "plane_through",
    "principal_plane",
    "random_plane",
]
