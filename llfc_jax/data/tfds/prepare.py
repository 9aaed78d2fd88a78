"""Prepare a set of TensorFlow Datasets, once: `python -m llfc_jax.data.tfds.prepare NAME`.

TFDS's own builder does the work, from the network or, with `--archives DIR`, from the official
files on disk, without network. Either way the official checksums must match. TensorFlow is needed
here (`pip install "llfc-jax[prepare]"`) and nowhere else.
"""

import argparse
import contextlib
import importlib
import importlib.util
import os
import socket
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from llfc_jax.data import DATASETS
from llfc_jax.data.checks import first_line
from llfc_jax.data.tfds.archives import Archive, collect
from llfc_jax.errors import DataError, LlfcError

if TYPE_CHECKING:
    from llfc_jax.data.tfds.records import Builder


def prepare(
    name: str,
    *,
    archives: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> Path:
    """Prepares a set so that `llfc_jax.data.load(name)` can read it; nothing to do if it is.

    TFDS writes aside and renames at the end, so a set is there whole or not at all.

    Args:
        name: as TFDS writes it: `fashion_mnist`, `emnist/letters`.
        archives: folder with the official files, under their official names; they are then not
            downloaded, and a missing one is an error. Debian's `/usr/share/datasets/fashion-mnist`
            is understood as well (`archives`). For a set that TFDS wants downloaded
            by hand (imagenet2012), the folder with the files it names.
        data_dir: where to put the set; TFDS's own default if None.

    Returns:
        The folder of the prepared set.

    Raises:
        DataError: if TensorFlow is missing, the set is unknown or no image classification set, an
            archive is missing or not the official one, or TFDS fails.
    """
    if name in DATASETS:
        raise DataError(f"data set {name!r} needs no preparing; use it as it is")
    if importlib.util.find_spec("tensorflow") is None:
        raise DataError(
            "preparing a data set needs TensorFlow, once (reading it does not): "
            'pip install "llfc-jax[prepare]", or tensorflow-cpu'
        )
    builder = _builder(name, data_dir)
    folder, root = Path(builder.data_dir), Path(builder.data_dir_root)
    if folder.exists():
        _check_readable(builder)
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        # beside the set, because unpacked archives may be too large for the system's own place
        aside = tempfile.TemporaryDirectory(prefix=".preparing-", dir=root)
    except OSError as error:
        raise DataError(f"cannot write to {root}: {error.strerror or error}") from error
    with aside as place:
        _run(builder, None if archives is None else Path(archives).expanduser(), Path(place))
    return folder


def _builder(name: str, data_dir: str | os.PathLike[str] | None) -> "Builder":
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import registered

    from llfc_jax.data.tfds import prepared

    place = None if data_dir is None else os.path.expanduser(data_dir)
    try:
        builder = tfds.builder(name, data_dir=place)
    except registered.DatasetNotFoundError:
        raise prepared.not_found(name, place) from None
    except Exception as error:  # a name, configuration or version that TFDS does not take
        raise DataError(f"TFDS has no {name!r}: {first_line(error)}") from error
    prepared.check_features(name, builder.info.features)
    return builder


def _check_readable(builder: "Builder") -> None:
    from llfc_jax.data.tfds import records

    for split in builder.info.splits:
        records.open_records(builder, split)


def _run(builder: "Builder", archives: Path | None, place: Path) -> None:
    """Lets TFDS prepare, from the network or from verified archives only."""
    urls = _list_urls(builder)
    if archives is None:
        manual, downloads = None, None  # TFDS's own, kept for the next time
        _check_network(builder, urls)
    else:
        manual, downloads = place / "archives", place / "downloads"
        manual.mkdir()
        collect(archives, _official(builder, urls), manual)

    import tensorflow_datasets as tfds

    tensorflow = importlib.import_module("tensorflow")
    with contextlib.suppress(RuntimeError):  # too late: TensorFlow runs already
        tensorflow.config.set_visible_devices([], "GPU")
    # TFDS reuses by file name what it has unpacked, and MNIST and Fashion-MNIST share their names:
    # never unpack two sets in one place.
    config = tfds.download.DownloadConfig(
        manual_dir=manual, extract_dir=place / "unpacked", try_download_gcs=False
    )
    try:
        builder.download_and_prepare(
            download_dir=downloads, download_config=config, file_format="array_record"
        )
    except Exception as error:
        if Path(builder.data_dir).exists():  # someone else has prepared it meanwhile
            return
        raise DataError(f"TFDS cannot prepare {builder.name!r}: {first_line(error)}") from error


class _UrlsRequested(Exception):
    """Stops a builder once it has asked for its files."""


class _Recorder:
    """Replaces TFDS's download manager: records the first URLs requested, downloads nothing."""

    def __init__(self) -> None:
        self.urls: list[str] = []

    def download(self, urls: object) -> NoReturn:
        import jax

        self.urls = [getattr(url, "url", url) for url in jax.tree.leaves(urls)]
        raise _UrlsRequested

    download_and_extract = download


def _list_urls(builder: "Builder") -> list[str]:
    """Returns the URLs that a builder downloads first; none if it does not say.

    A builder's list of checksums will not do: it may hold files of other configurations, or ones
    that are no longer used.
    """
    recorder = _Recorder()
    with contextlib.suppress(Exception):  # builders differ; TFDS itself will say what is wrong
        builder._split_generators(recorder)
    return recorder.urls


def _official(builder: "Builder", urls: Sequence[str]) -> list[Archive]:
    from tensorflow_datasets.core.download import checksums

    known = checksums.get_all_url_infos() | (builder.url_infos or {})
    official = []
    for url in urls:
        info = known.get(url)
        if info is None or not info.filename:
            raise DataError(
                f"{builder.name!r} cannot be prepared from archives: TFDS has no file name and "
                f"checksum for {url}"
            )
        official.append(Archive(url, info.filename, int(info.size), info.checksum))
    return official


def _check_network(builder: "Builder", urls: Sequence[str]) -> None:
    """Fails at once where TFDS cannot get at the files: by itself it would try for minutes.

    Nothing is said if some files are there already, or if a proxy finds hosts in our place.
    """
    downloads = Path(builder.data_dir_root) / "downloads"
    if any(path.is_file() for path in downloads.rglob("*")):
        return
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        raise DataError(
            f"{builder.name!r} must be downloaded by hand (see {builder.info.homepage}); "
            "then give the folder with --archives DIR"
        )
    host = urllib.parse.urlsplit(urls[0]).hostname if urls else None
    if host is None or urllib.request.getproxies():
        return
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        raise DataError(
            f"no network (cannot find {host}); give --archives DIR, a folder with the official "
            f"files: {' '.join(urls)}"
        ) from error


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status: 0, or 2 after one line on stderr."""
    parser = _Parser(
        prog="llfc_jax.data.tfds.prepare", description="Prepare a set of TensorFlow Datasets, once."
    )
    parser.add_argument("name", help="data set, as TFDS writes it: fashion_mnist")
    parser.add_argument("--archives", metavar="DIR", help="folder with the official files")
    parser.add_argument("--data-dir", metavar="DIR", help="where TFDS keeps its sets")
    options = parser.parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        folder = prepare(options.name, archives=options.archives, data_dir=options.data_dir)
    except LlfcError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    print(f"{options.name} is prepared in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
