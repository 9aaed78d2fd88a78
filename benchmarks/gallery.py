"""Draws the figures of docs/gallery.md and docs/landscape.md again, by running the pages' own code.

    python benchmarks/gallery.py out/gallery

The runs that the gallery reads are made first, into the directory: five minutes on two CPU cores.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from llfc_jax import data, networks, training

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "docs" / "landscape.md", ROOT / "docs" / "gallery.md")
CODE = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
IMAGE = re.compile(r"\((images/gallery/\S+)\)")
QUICKSTART = str(ROOT / "configs" / "quickstart.py")
TUNED = (
    "--config.network.widths=(64,64,64)",
    "--config.train.epochs=20",
    "--config.pairs=('finetune_k10_0_5',)",
    "--config.measures=('ctl',)",
    "--config.merge=()",
)
SWEEP = (
    "--config.pairs=('spawn_k0','spawn_k1','spawn_k3','spawn_k8')",
    "--config.measures=('lmc','llfc')",
    "--config.sweep.seed=(0,1,2,3)",
    "--config.sweep.network.widths=((32,32),(128,128))",
)


def main() -> None:
    work = Path(sys.argv[1])
    run = [sys.executable, "-m", "llfc_jax.main", "--quiet", "--config", QUICKSTART]
    subprocess.run([*run, "--workdir", str(work / "out" / "quickstart")], check=True)
    subprocess.run([*run, *SWEEP, "--workdir", str(work / "out" / "sweep")], check=True)
    tuned = [*run[:-1], f"{ROOT / 'configs' / 'mlp_fashion_finetune.py'}:tiny", *TUNED]
    subprocess.run([*tuned, "--workdir", str(work / "out" / "finetune")], check=True)
    names = train_three()
    os.chdir(work)
    for page in PAGES:
        text, given = page.read_text("utf-8"), dict(names)
        for block in CODE.findall(text):
            exec(compile(block, page.name, "exec"), given)
        for image in IMAGE.findall(text):
            target = page.parent / image
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(target.name, target)


def train_three() -> dict[str, object]:
    """Returns a network with three modes, of which the first two share an epoch, and its data."""
    digits = data.load("digits")
    network = networks.build("mlp", digits.classes, widths=(64, 64))
    recipe = training.Recipe(
        epochs=20, optimizer="adam", learning_rate=1e-3, schedule="constant", weight_decay=0.0
    )
    pairs = training.train_pairs(network, digits, recipe, ("spawn_k1", "independent"), seed=0)
    x, y = next(iter(data.Batches(digits.test, digits, batch_size=360)))
    near = pairs["spawn_k1"]
    modes = {"a": near.a, "b": near.b, "c": pairs["independent"].b}
    return {"network": network, "x": x, "y": y, **modes}


if __name__ == "__main__":
    main()
