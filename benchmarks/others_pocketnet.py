"""LMC and LLFC of five networks that others trained: the folds of PocketNet 0.3.0 (MIT licence).

    pip install pocketnet==0.3.0                                     # brings PyTorch
    pip download --no-deps --no-binary :all: MDAnalysisTests==2.11.0 # structures of proteins
    python benchmarks/others_pocketnet.py inputs mdanalysistests-2.11.0.tar.gz inputs.npz
    python benchmarks/others_pocketnet.py study inputs.npz out/pocketnet

`inputs` (needs PyTorch) takes the package's own features of 43 protein chains, the package's
weights, and what each of its five networks says. `study` does not: it holds the same network in
JAX, checks that it says the same, and measures the ten pairs on the first 8 chains.

A sample is one chain: the 600 atoms nearest to the surface point that the ensemble scores highest,
each with its 24 nearest neighbours, and the 128 surface points nearest to that one. The package has
no labels; what a pair of folds is judged by is the mean logit of the three others (squared error).
"""

import argparse
import gzip
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import others

Weights = Mapping[str, Any]
Inputs = Mapping[str, jax.Array]

LAYERS = 6
ATOMS, NEIGHBOURS, POINTS, NEAR = 600, 24, 128, 32
R_ATOM, R_POINT = 6.0, 10.0
CHAINS = "/dssp/"  # the folder of the archive that holds single chains
INPUTS = ("types", "counts", "near_atoms", "distance", "bonded", "nearest", "atoms_at_point",
          "point_distance", "axial", "radial", "point_features")  # fmt: skip


def linear(weights: Weights, name: str, x: jax.Array) -> jax.Array:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def two_layers(weights: Weights, name: str, x: jax.Array) -> jax.Array:
    return linear(weights, f"{name}.2", jax.nn.silu(linear(weights, f"{name}.0", x)))


def radial_basis(distance: jax.Array, count: int, low: float, high: float) -> jax.Array:
    centres = jnp.linspace(low, high, count)
    return jnp.exp(-(((distance[..., None] - centres) / ((high - low) / count)) ** 2))


def layer_norm(weights: Weights, name: str, x: jax.Array) -> jax.Array:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def pass_messages(weights: Weights, name: str, h: jax.Array, x: Inputs) -> jax.Array:
    """Returns the atoms after one layer: gated messages of neighbours, and a residual update."""
    others = h[x["near_atoms"]]
    own = jnp.broadcast_to(h[:, None], others.shape)
    z = jnp.concatenate([own, others, radial_basis(x["distance"], 16, 0, R_ATOM)], -1)
    messages = two_layers(weights, f"{name}.msg", z)
    messages = messages * jax.nn.sigmoid(linear(weights, f"{name}.gate", z))
    gathered = jnp.where(x["bonded"][..., None], messages, 0).sum(1) / 12
    updated = h + two_layers(weights, f"{name}.upd", jnp.concatenate([h, gathered], -1))
    return layer_norm(weights, f"{name}.n1", updated)


def score_points(weights: Weights, x: Inputs) -> jax.Array:
    """Returns the logit of each surface point of one chain."""
    h = weights["emb.weight"][x["types"]] + linear(weights, "bur", x["counts"])
    for layer in range(LAYERS):
        h = pass_messages(weights, f"layers.{layer}", h, x)
    h = linear(weights, "proj", h)
    place = radial_basis(x["axial"], 12, -R_POINT, R_POINT)
    place = jnp.concatenate([place, radial_basis(x["radial"], 10, 0, R_POINT)], -1)
    around = h[x["atoms_at_point"]]
    scores = two_layers(weights, "att", jnp.concatenate([place, around], -1))
    near = x["point_distance"][..., None] < R_POINT
    shares = jax.nn.softmax(jnp.where(near, scores, -1e4), axis=1)
    values = linear(weights, "val", jnp.concatenate([around, place], -1))
    pooled = jnp.einsum("pkh,pkv->phv", shares, values).reshape(len(shares), -1)
    described = two_layers(weights, "pfn", x["point_features"])
    z = jnp.concatenate([pooled, described, h[x["nearest"]]], -1)
    z = jax.nn.silu(linear(weights, "out.0", z))
    return linear(weights, "out.5", jax.nn.silu(linear(weights, "out.3", z)))[:, 0]


def apply(weights: Weights, x: Inputs) -> jax.Array:
    """Returns logits [n, points] of the inputs of n chains."""
    return jax.vmap(lambda one: score_points(weights, one))(x)


def make_inputs(archive: Path, target: Path) -> None:
    """Writes inputs, weights and the package's own outputs; needs PyTorch and pocketnet."""
    import torch  # pyright: ignore
    from pocketnet import PocketPredictor, feat, read_structure  # pyright: ignore

    predictor = PocketPredictor("cpu")
    samples = []
    with tempfile.TemporaryDirectory() as folder, tarfile.open(archive) as files:
        for member in sorted(files.getnames()):
            if CHAINS not in member or not member.endswith("A.pdb.gz"):
                continue
            content = files.extractfile(member)
            assert content is not None
            path = Path(folder) / "chain.pdb"
            path.write_bytes(gzip.decompress(content.read()))
            structure = read_structure(str(path))
            if len(structure) >= ATOMS:
                with torch.no_grad():
                    samples.append(_sample(torch, feat, predictor, structure))
    stacked = {name: np.stack([s[name] for s in samples]) for name in samples[0]}
    weights = {
        f"fold{fold}/{name}": value.numpy()
        for fold, model in enumerate(predictor.models)
        for name, value in model.state_dict().items()
        if not name.endswith(".mu") and not name.startswith("atom_head")
    }
    np.savez_compressed(target, allow_pickle=False, **stacked, **weights)
    print(f"{len(samples)} chains into {target}")


def _sample(torch: Any, feat: Any, predictor: Any, structure: Any) -> dict[str, np.ndarray]:
    """Returns one chain's inputs, cut around its best point, and `fold_logits` [folds, points]."""
    types, elements = feat.atom_types(structure.res, structure.name)
    xyz, elements = torch.tensor(structure.xyz), torch.tensor(elements)
    points, normals = feat.sas_points(xyz, elements)
    described = feat.point_feats(points, normals, xyz, elements)
    kind = torch.tensor(types)
    scores = [torch.sigmoid(m(kind, xyz, points, described)[0]) for m in predictor.models]
    best = points[torch.stack(scores).mean(0).argmax()]
    atoms = (xyz - best).norm(dim=1).argsort()[:ATOMS]
    chosen = (points - best).norm(dim=1).argsort()[:POINTS]
    xyz, kind, points, described = xyz[atoms], kind[atoms], points[chosen], described[chosen]
    logits = [m(kind, xyz, points, described)[0] for m in predictor.models]
    graph = predictor.models[0].graph(kind, xyz, points, described)
    distance, near = (part[:, 1:] for part in feat.knn(xyz, xyz, NEIGHBOURS + 1))
    made = {
        "types": kind,
        "counts": graph["cnt"],
        "near_atoms": near,
        "distance": distance,
        "bonded": distance < R_ATOM,
        "nearest": graph["i1"],
        "atoms_at_point": graph["ip"],
        "point_distance": graph["dp"],
        "axial": graph["ax"],
        "radial": graph["rad"],
        "point_features": described,
        "fold_logits": torch.stack(logits),
    }
    arrays = {name: value.numpy() for name, value in made.items()}
    return {k: v.astype(np.int32) if v.dtype == np.int64 else v for k, v in arrays.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("inputs", "study"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--pair", default="", help="only this one, such as fold0-fold1")
    parser.add_argument("--align", nargs="+", default=["none"], help="such as: none weight")
    parser.add_argument("--chains", type=int, default=8, help="how many are measured")
    given = parser.parse_args()
    if given.what == "inputs":
        make_inputs(given.source, given.target)
        return
    x, folds, rest = others.load(given.source, INPUTS, given.chains)
    logits = others.evaluate(apply, folds, x, 1)
    others.check(logits, np.swapaxes(rest["fold_logits"], 0, 1))
    others.study_pairs(
        apply, folds, x, logits, given.target,
        only=given.pair, align=tuple(given.align), alphas=(0.0, 0.5, 1.0), batch_size=1,
    )  # fmt: skip
    if not given.pair:
        chains = f"{given.chains} protein chains"
        pair = "spawn_k0, other folds"  # as their weights show
        network = "PocketNet, 6 layers of 128"
        others.keep({"": given.target}, "others_pocketnet", network, chains, pair)


if __name__ == "__main__":
    main()
