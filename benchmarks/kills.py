"""Kills the main job at random moments, again and again, and compares with an unbroken run.

    python benchmarks/kills.py --kills 50                                  # a small experiment
    python benchmarks/kills.py --minutes 30 -- --config configs/sweep_spawn_mlp.py:tiny

What stands behind `--` are flags of `llfc_jax.main`. The job runs once undisturbed. Then it is
started and killed (SIGKILL) after a time drawn uniformly from the length of that run, into one
directory until it gets through; the directory must then hold the same files with the same bytes
(but for the time of writing and the seal over it, and checkpoints' arrays in place of their files,
which Orbax stamps), and the next directory begins. Exit status 1 if anything differs or a restart
fails.
"""

import argparse
import collections
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

import llfc_jax

SMALL = (
    "--config", "configs/quickstart.py", "--config.data.train_size=400",
    "--config.data.test_size=100", "--config.train.epochs=12", "--config.train.batch_size=20",
    "--config.network.widths=(16,)", "--config.measures=('lmc','llfc','spectrum')",
    "--config.align=('none','weight')",
)  # fmt: skip
# The time of writing, and at a file's end the seal that covers it.
STAMP = re.compile(rb'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00|"sha256":\s*"[0-9a-f]{64}"\s*}\s*\Z')


def contents(workdir: Path) -> dict[str, object]:
    """Path -> bytes of every file, times masked; of a checkpoint, path -> its tree of arrays."""
    found: dict[str, object] = {}
    for path in sorted(workdir.rglob("*")):
        name = path.relative_to(workdir).as_posix()
        if re.search(r"checkpoints/\d+$", name):
            found[name] = llfc_jax.load(path)
        elif path.is_file() and path.name != ".lock" and not re.search(r"checkpoints/\d+", name):
            found[name] = STAMP.sub(b"TIME", path.read_bytes())
    return found


def differences(one: Path, other: Path) -> list[str]:
    """Paths that only one of two directories has, or whose content differs."""

    def same(a: object, b: object) -> bool:
        if isinstance(a, bytes) or isinstance(b, bytes):
            return a == b
        return jax.tree.structure(a) == jax.tree.structure(b) and all(
            np.asarray(p).tobytes() == np.asarray(q).tobytes()
            for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
        )

    a, b = contents(one), contents(other)
    return [name for name in sorted(a | b) if name not in a or name not in b
            or not same(a[name], b[name])]  # fmt: skip


def phase(workdir: Path) -> str:
    """What the job was doing, from what it left."""
    if not (workdir / "config.json").exists() and not (workdir / "runs").exists():
        return "starting"
    for name, pattern in (
        ("writing the report", "*.csv"),
        ("measuring", "**/measured/*"),
        ("matching", "**/permutations/*"),
        ("training and saving", "**/checkpoints/*"),
    ):
        if any(workdir.glob(pattern)):
            return name
    return "starting"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50, help="stop after so many")
    parser.add_argument("--minutes", type=float, default=None, help="stop after so long instead")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("job", nargs="*", default=SMALL, help="flags of llfc_jax.main")
    arguments = parser.parse_args()
    moments = random.Random(arguments.seed)
    folder = Path(tempfile.mkdtemp(prefix="kills-"))

    def job(workdir: Path, seconds: float | None) -> int | None:
        """Exit status, or None if the job was killed."""
        command = [sys.executable, "-m", "llfc_jax.main", *arguments.job, "--workdir", str(workdir)]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
            try:
                return process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                return None

    start = time.monotonic()
    if job(folder / "unbroken", None):
        print((folder / "log").read_text(), file=sys.stderr)
        return 1
    length = time.monotonic() - start
    print(f"unbroken: {length:.1f} s; directories below {folder}", flush=True)

    start, kills, finished = time.monotonic(), collections.Counter[str](), 0
    wrong: list[str] = []

    def over() -> bool:
        if arguments.minutes is not None:
            return time.monotonic() - start > 60 * arguments.minutes
        return kills.total() >= arguments.kills

    workdir = folder / "0"
    while not wrong:
        status = job(workdir, None if over() else moments.uniform(0, length))
        if status is None:
            kills[phase(workdir)] += 1
            continue
        if status:
            wrong = [f"exit status {status}: {(folder / 'log').read_text().strip()}"]
        else:
            finished += 1
            wrong = differences(folder / "unbroken", workdir)
            print(f"{kills.total()} kills, {finished} runs finished, {wrong or 'all equal'}",
                  flush=True)  # fmt: skip
            if over():
                break
            workdir = folder / str(finished)
    minutes = (time.monotonic() - start) / 60
    print(f"{kills.total()} kills over {finished} runs in {minutes:.1f} minutes: "
          + ", ".join(f"{count} {name}" for name, count in kills.most_common()))  # fmt: skip
    print(f"different: {wrong}" if wrong else "every run ended with the bytes of the unbroken one")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
