"""Made-up results with the shape of real ones."""

import math

from llfc_jax.report.charts import Chart, Section

PAIRS = {"spawn_k1": 0.02, "spawn_k5": 0.01, "independent": 1.0}
ALIGNS = ("none", "weight")
MLP = (*(f"Dense_{i}{end}" for i in range(3) for end in ("", ".relu")), "Dense_3")
RESNET = (
    "Conv_0",
    "BatchNorm_0",
    "BatchNorm_0.relu",
    *(
        f"blocks_{b}/{part}"
        for b in range(9)
        for part in ("Conv_0", "Conv_0.relu", "Conv_1", "out.relu")
    ),
    "Dense_0",
)
ALPHAS = tuple(i / 10 for i in range(11))


def strength(pair, align):
    """How far the pair is from connected, 0 to 1."""
    return PAIRS[pair] * (0.15 if align == "weight" else 1.0)


def lmc_rows(alphas=ALPHAS, aligns=ALIGNS):
    rows = []
    for pair in PAIRS:
        for align in aligns:
            for split, ends in (("train", 0.004), ("test", 0.021)):
                for alpha in alphas:
                    hump = strength(pair, align) * (4 * alpha * (1 - alpha)) ** 2
                    error = ends + 0.11 * hump + 0.001 * alpha
                    rows.append(
                        {
                            "pair": pair,
                            "align": align,
                            "split": split,
                            "alpha": alpha,
                            "loss": 3 * ends + 1.5 * hump,
                            "accuracy": 1 - error,
                            "error": error,
                        }
                    )
    return rows


def llfc_rows(layers=MLP, alphas=ALPHAS, aligns=ALIGNS):
    rows = []
    for pair in PAIRS:
        for align in aligns:
            for depth, layer in enumerate(layers):
                wave = 1 + 0.35 * math.sin(1.9 * depth)
                baseline = (0.05 + 0.35 * (depth + 1) / len(layers)) * wave
                for alpha in alphas:
                    hump = 4 * alpha * (1 - alpha)
                    distance = 0.55 * baseline * hump * strength(pair, align) + 1e-9 * alpha
                    rows.append(
                        {
                            "pair": pair,
                            "align": align,
                            "layer": layer,
                            "alpha": alpha,
                            "distance": distance,
                            "distance_std": 0.4 * distance,
                            "baseline": baseline,
                            "baseline_std": 0.2 * baseline,
                            "coefficient": 1 - 0.4 * hump * strength(pair, align) * wave,
                            "coefficient_std": 0.05 * hump * strength(pair, align),
                            "pooled_distance": 0.9 * distance,
                            "absolute_distance": distance,
                            "left_out": 0,
                            "samples": 10000,
                        }
                    )
    return rows


LMC = Section(
    name="lmc",
    title="Linear mode connectivity",
    text=(
        "The network at every point of the straight line between the two modes: "
        "`theta_alpha = alpha * a + (1 - alpha) * b`, so alpha = 0 is b and alpha = 1 is a.\n\n"
        "A flat curve means that the modes are linearly connected. The barrier is the highest "
        "point of the curve above the mean of its ends."
    ),
    charts=(
        Chart(
            name="lmc_error",
            title="Error along the straight line between the modes",
            caption=(
                "Flat where the modes are linearly connected; a hump in the middle is a barrier."
            ),
            x="alpha",
            y={"error": "error"},
            x_label="alpha (0: mode b, 1: mode a)",
            y_label="share of samples misclassified",
            lines="split",
        ),
        Chart(
            name="lmc_loss",
            title="Loss along the straight line between the modes",
            caption="As above, for the cross-entropy.",
            x="alpha",
            y={"loss": "cross-entropy"},
            x_label="alpha (0: mode b, 1: mode a)",
            y_label="cross-entropy (nats)",
            lines="split",
        ),
    ),
    columns={
        "pair": "pair",
        "align": "aligned by",
        "split": "split",
        "alpha": "alpha",
        "loss": "loss",
        "accuracy": "accuracy",
        "error": "error",
    },
)

LLFC = Section(
    name="llfc",
    title="Layerwise linear feature connectivity",
    text=(
        "Layer by layer: are the features of the interpolated network the interpolated features of "
        "the two networks? `distance` is the mean over samples of 1 - cosine between them, near 0 "
        "where they are.\n\nIt says something only where the two modes' own features differ, that "
        "is where the `baseline` 1 - cosine_AB is far above it."
    ),
    charts=(
        Chart(
            name="llfc_layers",
            title="Distance to the interpolated features, layer by layer",
            caption="LLFC holds where the solid line lies far below the dashed baseline.",
            x="layer",
            y={"distance": "1 - cosine_alpha", "baseline": "1 - cosine_AB (baseline)"},
            x_label="layer, in depth order",
            y_label="1 - cosine",
            band={"distance": "distance_std", "baseline": "baseline_std"},
            where={"alpha": 0.5},
            log=True,
        ),
        Chart(
            name="llfc_alphas",
            title="Every alpha, layer by layer",
            caption="One line per alpha; the ends are exact by definition.",
            x="layer",
            y={"distance": "1 - cosine_alpha", "baseline": "1 - cosine_AB (baseline)"},
            x_label="layer, in depth order",
            y_label="1 - cosine",
            lines="alpha",
            log=True,
        ),
        Chart(
            name="llfc_along",
            title="Along alpha, one line per layer",
            caption="Where along the path the features leave the straight line.",
            x="alpha",
            y={"distance": "1 - cosine_alpha"},
            x_label="alpha (0: mode b, 1: mode a)",
            y_label="1 - cosine_alpha",
            lines="layer",
        ),
        Chart(
            name="llfc_coefficient",
            title="Coefficient of the interpolated features",
            caption="Near 1 where the interpolated network's features also have the same length.",
            x="layer",
            y={"coefficient": "coefficient"},
            x_label="layer, in depth order",
            y_label="coefficient",
            band={"coefficient": "coefficient_std"},
            where={"alpha": 0.5},
            mark="bars",
        ),
    ),
    columns={
        "pair": "pair",
        "align": "aligned by",
        "layer": "layer",
        "alpha": "alpha",
        "distance": "1 - cosine_alpha",
        "distance_std": "± std",
        "baseline": "1 - cosine_AB",
        "coefficient": "coefficient",
        "pooled_distance": "pooled 1 - cosine_alpha",
    },
)

SUMMARY = [
    {
        "pair": pair,
        "align": align,
        "error_a": 0.021,
        "error_b": 0.022,
        "barrier": 0.11 * strength(pair, align),
        "distance": 0.1 * strength(pair, align),
        "baseline": 0.21,
        "flags": [] if strength(pair, align) < 0.5 else ["not connected"],
    }
    for pair in PAIRS
    for align in ALIGNS
]

SUMMARY_COLUMNS = {
    "pair": "pair",
    "align": "aligned by",
    "error_a": "error of a",
    "error_b": "error of b",
    "barrier": "error barrier",
    "distance": "1 - cosine_alpha",
    "baseline": "1 - cosine_AB",
    "flags": "flags",
}
