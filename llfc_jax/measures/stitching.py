"""Model stitching: one network's features, fed to the rest of the other."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import numpy as np

from llfc_jax.errors import GraphError
from llfc_jax.graph import Graph
from llfc_jax.graph.sites import Site
from llfc_jax.measures.batch import PairBatch, Reading
from llfc_jax.measures.evaluator import measure_pair
from llfc_jax.measures.measure import Measure, Totals
from llfc_jax.measures.options import EvalOptions
from llfc_jax.measures.registry import measure
from llfc_jax.measures.similarity import stack
from llfc_jax.report.charts import Chart, Section
from llfc_jax.results import Result, axes, labels, result, setting
from llfc_jax.types import Batches, Model, ProgressFn

DIRECTIONS = ("a into b", "b into a")
# Equations evaluated in one compiled program: beyond, compiling would outweigh the prefixes saved.
BUDGET = 3000
CUTS = "cuts"


@result
class StitchingResult(Result):
    """Loss and error of stitched networks, without an adapter.

    Attributes:
        layers: sites whose value is handed over.
        directions: "a into b": a's value at the site, the rest is b; and the other way round.
        cuts: whether every path from input to output passes the site; where it does not, the
            stitched network runs one end's branch beside the other's shortcut [layers].
        loss: mean loss [layers, directions].
        error: share predicted wrongly; NaN where the task has none [layers, directions].
        loss_a: of the end a [].
        loss_b: of the end b [].
        error_a: of the end a [].
        error_b: of the end b [].
        samples: number of samples.
        renormalise: the kind of renormalisation.
    """

    layers: tuple[str, ...] = labels("layer")
    directions: tuple[str, ...] = labels("direction")
    cuts: Any = axes("layers")
    loss: Any = axes("layers", "directions")
    error: Any = axes("layers", "directions")
    loss_a: Any = axes()
    loss_b: Any = axes()
    error_a: Any = axes()
    error_b: Any = axes()
    samples: int = setting()
    renormalise: str = setting("none")


@measure("stitching")
@dataclasses.dataclass(frozen=True)
class Stitching(Measure):
    """Stitched networks at sites that cut the network, or at others on request.

    It visits no α, so the grid does not bear on it.

    Attributes:
        sites: "cuts" for those that every path from input to output passes, of the options' sites
            and, where these are all linear layers, of the blocks that hold some; or kinds or name
            patterns of sites, whether they cut the network or not: the result says of each whether
            it does.
    """

    sites: str | tuple[str, ...] = CUTS

    uses: ClassVar[frozenset[str]] = frozenset({"sites", "renormalise", "precision"})
    columns: ClassVar[Mapping[str, str]] = {"stitch_worst": "error when stitched, highest"}
    other_columns: ClassVar[Mapping[str, str]] = {
        "stitch_worst_loss": "loss when stitched, highest"
    }
    section: ClassVar[Section] = Section(
        name="stitching",
        title="Stitching",
        text=(
            "Both networks are cut after a layer, and the first part of one is followed "
            "by the second part of the other, without any training. If the result works "
            "about as well as the two networks, both represent the same information in "
            "the same units there; if it is no better than chance, their features only "
            "look alike.\n\n"
            "A network can be cut only where every path from input to output passes: "
            "after a residual block, not inside it. `sites` can name layers inside "
            "branches too; the column `cuts` says which layers cut the network."
        ),
        charts=(
            Chart(
                name="stitching",
                title="Error of one network up to a layer, continued by the other",
                caption=(
                    "One network up to and including the named layer, the other after it; dashed "
                    "and dotted, the two networks themselves."
                ),
                x="layer",
                y={"error": "stitched", "error_a": "network a", "error_b": "network b"},
                x_label="last layer of the first network",
                y_label="error (share of samples)",
                lines="direction",
            ),
            Chart(
                name="stitching_loss",
                title="Loss of one network up to a layer, continued by the other",
                caption=(
                    "One network up to and including the named layer, the other after it; dashed "
                    "and dotted, the two networks themselves."
                ),
                x="layer",
                y={"loss": "stitched", "loss_a": "network a", "loss_b": "network b"},
                x_label="last layer of the first network",
                y_label="loss",
                lines="direction",
                unless="error",
            ),
        ),
        columns={
            "layer": "cut behind",
            "direction": "direction",
            "cuts": "cuts the network",
            "error": "error",
            "loss": "loss",
            "error_a": "error of a",
            "error_b": "error of b",
            "loss_a": "loss of a",
            "loss_b": "loss of b",
        },
    )

    def plan(self, graph: Graph, options: EvalOptions) -> tuple[str, ...]:
        """Returns the names of the sites.

        Raises:
            GraphError: none of the options' sites cuts the network.
        """
        if self.sites != CUTS:
            return tuple(site.name for site in graph.select(self.sites))
        cuts, chosen = set(graph.cut_sites), graph.select(options.sites)
        own = {site.name for site in chosen}
        if "linear" in options.sites:
            values = {site.value for site in chosen}
            own |= {site.name for site in _blocks(graph) if site.value not in values}
        found = tuple(site.name for site in graph.sites if site.name in own & cuts)
        if not found:
            raise GraphError(
                f"no site among {', '.join(options.sites)} cuts the network; give stitching "
                "sites='all', or names of sites, to stitch inside its branches"
            )
        return found

    def parts(self, graph: Graph, plan: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
        """Returns the sites in runs whose stitched networks fit into one program."""
        total = len(graph.program.equations)
        groups: list[list[str]] = [[]]
        spent = 0
        for name in plan:
            cost = 2 * (total - graph[name].equation)
            if groups[-1] and spent + cost > BUDGET:
                groups.append([])
                spent = 0
            groups[-1].append(name)
            spent += cost
        return tuple(map(tuple, groups))

    def read(self, batch: PairBatch, plan: tuple[str, ...]) -> Reading:
        """Returns loss and right predictions of the stitched networks, and of the ends.

        A stitched network starts from the end that it goes on in; only what depends on the site
        is evaluated again.
        """
        ways = ((batch.a, batch.b), (batch.b, batch.a))
        stitched = [
            stack([batch.judge(rest.replace({name: start[name]}).output) for start, rest in ways])
            for name in plan
        ]
        ends = batch.judge(batch.a.output), batch.judge(batch.b.output)
        return Reading((stack(stitched), ends))

    def join(self, sums: Sequence[Any]) -> Any:
        """Returns the sums of all runs of sites."""
        stitched = [part for part, _ in sums]
        return jax.tree.map(lambda *parts: np.concatenate(parts), *stitched), sums[0][1]

    def finish(self, totals: Totals) -> StitchingResult:
        """Returns loss and error of the stitched networks beside those of the ends."""
        sums, ends = totals.sums
        stitched = totals.task.finish(sums)
        loss, nothing = stitched["loss"], np.asarray(np.nan)
        of_a, of_b = (totals.task.finish(end) for end in ends)
        cuts = set(totals.graph.cut_sites)
        return StitchingResult(
            layers=totals.plan,
            directions=DIRECTIONS,
            cuts=np.array([name in cuts for name in totals.plan]),
            loss=loss,
            error=stitched.get("error", np.full_like(loss, np.nan)),
            loss_a=of_a["loss"],
            loss_b=of_b["loss"],
            error_a=of_a.get("error", nothing),
            error_b=of_b.get("error", nothing),
            samples=int(ends[0]["count"]),
            renormalise=totals.renormalise,
        )

    def summary_metrics(self, result: StitchingResult) -> dict[str, float]:
        """Returns the least and the largest error (or loss) of a stitched network."""
        error, loss = np.asarray(result.error), np.asarray(result.loss)
        if np.isnan(error).all():
            return {"stitch_best_loss": float(loss.min()), "stitch_worst_loss": float(loss.max())}
        return {"stitch_best": float(error.min()), "stitch_worst": float(error.max())}


def stitching(
    network: Model,
    a: Model,
    b: Model,
    batches: Batches,
    options: EvalOptions | None = None,
    *,
    train_batches: Batches | None = None,
    progress: ProgressFn | None = None,
    **changes: object,
) -> StitchingResult:
    """Stitches the two networks at every site that cuts them, in both directions.

    With f_l the network up to site l and g_l what follows it, "a into b" is g_l(b; f_l(a; x)). A
    site inside a residual branch has no such g_l: there a's branch would run beside b's own
    shortcut. Such sites are measured on request (`sites="linear"`, say) and marked in the result.

    Args:
        network: a module of any framework, or `apply(variables, x) -> logits [n, classes]`.
        a: the mode that α multiplies.
        b: the other mode.
        batches: re-iterable pairs (x [n, ...], labels [n]).
        options: how the pair is measured; the defaults if None.
        train_batches: data for renormalising.
        progress: called as (batches done, batches in all or 0, words).
        **changes: fields of the options or of `Stitching` that are to be other than said.

    Raises:
        ConfigError: an option that there is not, or that the measure cannot honour.
        ModeError: the modes are no pair.
        GraphError: a pattern matches no site, or no site cuts the network.
        DataError: the data do not fit the network.

    Source: the LLFC paper, appendix B.4; Lenc and Vedaldi 2015; Bansal et al. 2021.
    """
    return measure_pair(
        "stitching", network, a, b, batches, options, train_batches, progress, changes
    )


def _blocks(graph: Graph) -> list[Site]:
    """The modules that hold linear layers, as the blocks of a residual network."""
    linear = [site.name for site in graph.sites if site.kind == "linear"]
    return [
        site
        for site in graph.sites
        if site.kind == "module" and any(name.startswith(f"{site.name}/") for name in linear)
    ]
