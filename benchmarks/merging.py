"""Merges made checkpoints of a billion parameters: time against copying the files, and memory.

    python benchmarks/merging.py --out /tmp/merging --rules mean ties dare

Each model has the shapes of a language model of 22 blocks of width 2,048 (vocabulary 32,000), in
bfloat16, in files of at most 500 MB; numbers are random. The peak is of the whole process, Python
and JAX included, and of what it holds before the merge.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import ml_dtypes
import numpy as np

SHARD = 500_000_000


def shapes(width: int, blocks: int, vocabulary: int) -> dict[str, tuple[int, int]]:
    inner = int(2.75 * width)
    named = {"model.embed_tokens.weight": (vocabulary, width)}
    for i in range(blocks):
        named |= {f"model.layers.{i}.self_attn.{part}.weight": (width, width) for part in "qkvo"}
        named |= {f"model.layers.{i}.mlp.{part}.weight": (inner, width) for part in ("gate", "up")}
        named[f"model.layers.{i}.mlp.down.weight"] = (width, inner)
    return {**named, "lm_head.weight": (vocabulary, width)}


def write_model(folder: Path, seed: int, named: dict[str, tuple[int, int]]) -> Path:
    """Writes a model in files; entries repeat a block of a million random numbers."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    noise = np.random.default_rng(seed).normal(0, 0.02, 1 << 20).astype(ml_dtypes.bfloat16)
    parts, size = [{}], 0
    for name, shape in named.items():
        nbytes = 2 * shape[0] * shape[1]
        if size + nbytes > SHARD and parts[-1]:
            parts.append({})
            size = 0
        parts[-1][name], size = shape, size + nbytes
    places = {}
    for i, part in enumerate(parts):
        file = f"model-{i + 1:05}-of-{len(parts):05}.safetensors"
        save_file({name: np.resize(noise, shape) for name, shape in part.items()}, folder / file)
        places |= dict.fromkeys(part, file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return index


def merge_once(out: Path, rule: str) -> None:
    """Merges in this process, and prints seconds and megabytes."""
    import jax

    from llfc_jax.merging import RULES, merge_files

    jax.random.uniform(jax.random.key(0), (1 << 19,)).block_until_ready()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    base = out / "base" if RULES[rule].needs_base else None
    merge_files([out / "a", out / "b"], out / "merged", rule, base=base)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([seconds, peak / 1024, before / 1024]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rules", nargs="+", default=["mean", "slerp", "ties", "dare"])
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--blocks", type=int, default=22)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--one", help="a rule: merge in this process")
    flags = parser.parse_args()
    if flags.one:
        merge_once(flags.out, flags.one)
        return
    named = shapes(flags.width, flags.blocks, flags.vocabulary)
    for seed, name in enumerate(("base", "a", "b")):
        if not (flags.out / name).exists():
            write_model(flags.out / name, seed, named)
    files = sorted((flags.out / "a").glob("*.safetensors"))
    largest = max(file.stat().st_size for file in files) / 2**20
    count = sum(p * q for p, q in named.values())
    start = time.perf_counter()
    shutil.copytree(flags.out / "a", flags.out / "copied")
    copied = time.perf_counter() - start
    shutil.rmtree(flags.out / "copied")
    print(f"{count / 1e9:.2f} billion parameters, {len(files)} files, the largest {largest:.0f} MB")
    print(f"copying one model: {copied:.1f} s")
    for rule in flags.rules:
        command = [sys.executable, __file__, "--out", flags.out, "--one", rule]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
        seconds, peak, before = json.loads(done.stdout)
        print(f"{rule}: {seconds:.1f} s, {seconds / copied:.1f} times copying; peak {peak:.0f}, "
              f"{before:.0f} MB of it before, {peak / largest:.2f} of a file")  # fmt: skip
        shutil.rmtree(flags.out / "merged")


if __name__ == "__main__":
    main()
