"""Training history as a section of the page.

Its rows are those of `training.History.records()`, with the name of the pair as column `pair`.
"""

from llfc_jax.report.charts import Chart, Section


def _chart(column: str, title: str, label: str, caption: str, log: bool) -> Chart:
    return Chart(
        name=f"history_{column}",
        title=title,
        caption=caption,
        x="epoch",
        y={column: label},
        x_label="epoch",
        y_label=label,
        lines="run",
        log=log,
    )


SECTION = Section(
    name="history",
    title="Training",
    text="How the networks were trained: mean loss and accuracy over each epoch, while the weights "
    "moved. A line that ends early diverged there.",
    charts=(
        _chart("loss", "Training loss", "cross-entropy", "Mean over each epoch.", True),
        _chart("accuracy", "Training accuracy", "accuracy", "Share of samples, per epoch.", False),
    ),
    columns={
        "pair": "pair",
        "run": "network",
        "epoch": "epoch",
        "loss": "loss",
        "accuracy": "accuracy",
    },
)
