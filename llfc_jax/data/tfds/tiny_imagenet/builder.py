"""A TFDS builder that reads the published archive of Tiny-ImageNet as it is, without unpacking."""

import io
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from llfc_jax.errors import DataError

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"  # size and SHA-256: checksums.tsv
ROOT = "tiny-imagenet-200"
ANNOTATIONS = f"{ROOT}/val/val_annotations.txt"  # file name, synset and box, parted by tabs
CLASSES = 200


class TinyImagenet(tfds.core.GeneratorBasedBuilder):
    """200 classes of ImageNet at 64x64 pixels: 500 train and 50 validation images of each.

    The archive holds `train/SYNSET/images/*.JPEG` (and boxes, which are left alone), and
    `val/images/*.JPEG`, whose synsets stand in `val/val_annotations.txt`. The labels of its test
    images were never published; they are left out, and `llfc_jax.data` tests on `validation`. A
    label is the place of the image's synset in alphabetical order, as in PyTorch's `ImageFolder`.

    Reference: Le and Yang 2015, "Tiny ImageNet visual recognition challenge".
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Image(shape=(64, 64, 3), encoding_format="jpeg")
        label = tfds.features.ClassLabel(num_classes=CLASSES)
        return tfds.core.DatasetInfo(
            builder=self,
            description="ImageNet's images of 200 classes at 64x64 pixels.",
            features=tfds.features.FeaturesDict({"image": image, "label": label}),
            supervised_keys=("image", "label"),
            homepage="http://cs231n.stanford.edu",
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[str, Any]]]:
        archive = dl_manager.download(URL)
        return {
            "train": self._generate_examples(archive, "train"),
            "validation": self._generate_examples(archive, "val"),
        }

    def _generate_examples(
        self, archive: tfds.core.Path, part: str
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields (file name, example) of every image of a part, `train` or `val`.

        Members of other names are not looked at; nothing is written.
        """
        with archive.open("rb") as stream, zipfile.ZipFile(stream) as members:
            label = {synset: i for i, synset in enumerate(_synsets(members))}
            for path, synset in _images(members, part):
                if synset not in label:
                    raise DataError(f"{path} in the archive is of no known class, {synset!r}")
                image = io.BytesIO(members.read(path))
                yield path.rpartition("/")[2], {"image": image, "label": label[synset]}


def _synsets(members: zipfile.ZipFile) -> list[str]:
    """Returns the classes, in alphabetical order."""
    return sorted(members.read(f"{ROOT}/wnids.txt").decode().split())


def _images(members: zipfile.ZipFile, part: str) -> Iterator[tuple[str, str]]:
    """Yields path and synset of every image of a part."""
    if part == "train":
        for path in members.namelist():
            if found := re.fullmatch(rf"{ROOT}/train/(n\d+)/images/[^/]+\.JPEG", path):
                yield path, found[1]
    else:
        for line in members.read(ANNOTATIONS).decode().splitlines():
            name, synset, *_ = line.split("\t")
            yield f"{ROOT}/val/images/{name}", synset
