"""Mean and standard deviation per channel, with which images are normalised.

Published constants are used where the field has them, so that results compare; they are rounded,
in units of 0 to 1. Of any other data set they are computed over the train split as loaded.
"""

import numpy as np

from llfc_jax.data.dataset import Split

CONSTANTS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    # MNIST's numbers as in the paper; Fashion-MNIST, standing in for it, is normalised alike.
    "mnist": ((0.1307,), (0.3081,)),
    "fashion_mnist": ((0.1307,), (0.3081,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "imagenet2012": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "imagenet_resized": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "tiny_imagenet": ((0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821)),
}
_CHUNK = 4096  # images at a time in float64


def mean_and_std(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Computes mean and deviation over all images and positions, one per channel.

    Images without channels, [n, features], have one of each in all. uint8 images count as 0 to 1.
    The deviation divides by n; a channel that never varies has deviation 1, so that normalising
    turns it into zeros.
    """
    images = split.images
    if images.dtype == np.int32:  # tokens are taken as they are
        return (0.0,), (1.0,)
    channels = images.shape[-1] if images.ndim == 4 else 1
    scale = 255.0 if images.dtype == np.uint8 else 1.0
    count = images.size // channels

    def total(power: int, centre: np.ndarray) -> np.ndarray:
        sums = np.zeros(channels)
        for start in range(0, len(images), _CHUNK):
            chunk = images[start : start + _CHUNK].reshape(-1, channels).astype(np.float64)
            sums += ((chunk / scale - centre) ** power).sum(axis=0)
        return sums

    mean = total(1, np.zeros(channels)) / count
    std = np.sqrt(total(2, mean) / count)
    std[std <= 1e-7 * np.abs(mean)] = 1.0  # float32 cannot tell less from constant
    return tuple(mean.tolist()), tuple(std.tolist())
