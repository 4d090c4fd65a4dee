"""Split the four raw IDX files into training, validation, and test arrays.

    python -m stages.prepare

Writes data/prepared/{train,validation,test}_{images,labels}.npy: images uint8
[images, height, width] from 0 to 255, labels uint8 [images]. The validation images come
from the training images, the same share of every class. `prepare.classes` leaves classes
out of both, but never out of the test images. Takes two seconds on MNIST.
"""

import hashlib
import sys
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from stages.core import files
from stages.core.arrays import Bytes
from stages.core.command import stage_parser
from stages.core.errors import ParamsError, StageError, run
from stages.core.files import Split
from stages.core.idx import content_digest, read_idx
from stages.core.params import read_params
from stages.core.schema import Params, Prepare

Raw = dict[tuple[str, str], Path]  # the four files, by split and content

# EMNIST prepends its own name and calls the test set "test"; some copies write ".idx3".
PATTERNS = {
    ("train", "images"): ["*train-images?idx3-ubyte"],
    ("train", "labels"): ["*train-labels?idx1-ubyte"],
    ("test", "images"): ["*t10k-images?idx3-ubyte", "*test-images?idx3-ubyte"],
    ("test", "labels"): ["*t10k-labels?idx1-ubyte", "*test-labels?idx1-ubyte"],
}


def main() -> None:
    stage_parser("prepare", __doc__).parse_args()
    params = read_params(Params).prepare
    raw = find_raw(Path(params.raw))
    sums = Path(params.raw) / "SHA256SUMS"
    if sums.exists():
        verify_digests(list(raw.values()), sums)
        print(f"{params.raw}: the four files match {sums.name}")
    else:
        print(f"note: {params.raw} has no SHA256SUMS, so nothing was verified")

    given, test = read_pair(raw, "train"), read_pair(raw, "test")
    check_fit(params, raw, given, test)
    train, validation = split_training(params, given, test)
    arrays: dict[Path, files.Content] = {}
    for split, (images, labels) in zip(files.SPLITS, (train, validation, test), strict=True):
        arrays |= {files.images_path(split): files.npy(images), files.labels_path(split): files.npy(labels)}
    files.write_all(arrays)
    height, width = train.images.shape[1:]
    print(
        f"{len(train.images)} training, {len(validation.images)} validation and {len(test.images)} test images "
        f"of {height}×{width} pixels, {len(np.unique(train.labels))} classes"
    )


def find_raw(folder: Path) -> Raw:
    """Find the four IDX files in `folder`, gzipped or not, by split and content.

    A file can also lie in a folder of its own name. Copies are fine if their contents are equal.
    Raises StageError if the folder or a file is missing, or copies differ.
    """
    if not folder.is_dir():
        home = " DVC doesn't expand ~, so write the whole path." if folder.parts[:1] == ("~",) else ""
        raise StageError(f"{folder}, named by prepare.raw in params.yaml, is not a folder.{home}")
    found = {}
    for (split, content), patterns in PATTERNS.items():
        named = [path for pattern in patterns for ending in ("", ".gz") for path in folder.glob(pattern + ending)]
        paths = sorted(path for path in named if not path.name.startswith("."))
        copies = [path / path.name if (path / path.name).is_file() else path for path in paths]
        if not copies:
            wanted = " or ".join(pattern.replace("?", "-") for pattern in patterns)
            raise StageError(f"{folder} lacks the {split} {content}: a file {wanted}, or the same with .gz.")
        if len(copies) > 1 and len({content_digest(path) for path in copies}) > 1:
            names = ", ".join(str(path.relative_to(folder)) for path in copies)
            raise StageError(
                f"{folder} has {len(copies)} files of {split} {content} whose contents differ; keep one of {names}."
            )
        found[split, content] = copies[-1]  # the gzipped one, the original
    return found


def verify_digests(paths: list[Path], sums: Path) -> None:
    """Compare the SHA-256 digests of files with those in `sums`, a file in the format of `sha256sum`.

    Raises StageError if a digest differs or is missing.
    """
    text = sums.read_bytes()
    encoding = "utf-16" if text.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"  # PowerShell writes UTF-16
    listed = {}
    for line in text.decode(encoding, errors="replace").splitlines():
        digest, _, name = line.partition(" ")
        listed[PurePosixPath(name.strip().removeprefix("*")).name] = digest.lower()  # `sha256sum ./*` writes paths
    for path in paths:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if path.name not in listed:
            raise StageError(f"{sums} has no line for {path.name}; add one or remove {sums.name}.")
        if digest != listed[path.name]:
            raise StageError(
                f"{path} has the SHA-256 digest {digest}, but {sums} lists {listed[path.name]}; "
                "the file is damaged or a different one."
            )


def read_pair(raw: Raw, split: str) -> Split:
    """Read the images, uint8 [images, height, width], and labels, uint8 [images], of "train" or "test".

    Raises StageError if a file is malformed, the numbers differ, or all pixels are equal.
    """
    images, labels = read_idx(raw[split, "images"], 3), read_idx(raw[split, "labels"], 1)
    if len(images) != len(labels):
        raise StageError(
            f"{raw[split, 'images']} has {len(images)} images, but {raw[split, 'labels']} has "
            f"{len(labels)} labels; the numbers have to be equal."
        )
    check_pixels(images, raw[split, "images"])
    return Split(images, labels)


def check_pixels(images: Bytes, path: Path) -> None:
    """Warn about images that are dark or inverted. Raises StageError if all pixels are equal."""
    lowest, highest, mean = images.min(), images.max(), images.mean()
    if lowest == highest:
        raise StageError(f"{path} shows nothing: all pixels are {lowest}, but at least two values are needed.")
    if highest < 128:
        problem = f"its brightest pixel is {highest}, but white is 255; scale the pixels"
    elif mean >= 128:
        problem = f"its pixels are {mean:.0f} on average, but ink has to be white, 255, on black, 0; invert the images"
    else:
        return
    print(f"warning: {path}: {problem}", file=sys.stderr)


def split_training(params: Prepare, given: Split, test: Split) -> tuple[Split, Split]:
    """Split the given images into training and validation images, and keep `prepare.classes` only.

    Raises ParamsError if one of the two is empty.
    """
    if params.validation_images:
        held_out = choose_validation(given.labels, params.validation_images, params.seed)
        train = Split(given.images[~held_out], given.labels[~held_out])
        validation = Split(given.images[held_out], given.labels[held_out])
    else:
        print("note: prepare.validation_images is 0, so training is monitored on the test images")
        train, validation = given, test
    if isinstance(params.classes, list):
        train, validation = (split.of_classes(params.classes) for split in (train, validation))
        if not (len(train.images) and len(validation.images)):
            raise ParamsError(
                f"params.yaml: prepare.classes leaves {len(train.images)} training and {len(validation.images)} "
                "validation images, but at least one of each is needed."
            )
    return train, validation


def check_fit(params: Prepare, raw: Raw, given: Split, test: Split) -> None:
    """Raise StageError if training and test images don't match, and ParamsError if the settings don't fit them."""
    size, test_size = given.images.shape[1:], test.images.shape[1:]
    if size != test_size:
        raise StageError(
            f"{raw['train', 'images']} has images of {size[0]}×{size[1]} pixels, but "
            f"{raw['test', 'images']} has images of {test_size[0]}×{test_size[1]}; the sizes have to be equal."
        )
    if isinstance(params.classes, list):
        for split, content in (("train", given), ("test", test)):
            if lacking := sorted(set(params.classes) - set(content.labels.tolist())):
                raise ParamsError(
                    f"params.yaml: prepare.classes has {', '.join(map(str, lacking))}, but {raw[split, 'labels']} only "
                    f"{', '.join(map(str, np.unique(content.labels)))}."
                )
    elif not np.isin(test.labels, given.labels).any():
        raise StageError(
            f"{raw['train', 'labels']} and {raw['test', 'labels']} have no class in common; at least one is needed."
        )
    if params.validation_images >= len(given.images):
        raise ParamsError(
            f"params.yaml: prepare.validation_images is {params.validation_images}, but has to be below "
            f"{len(given.images)}, the number of images in {raw['train', 'images']}."
        )


def choose_validation(labels: Bytes, count: int, seed: int) -> NDArray[np.bool_]:
    """Choose `count` positions at random, the same share of every class.

    labels: uint8 [images]; 0 < count < images. Largest remainders round the shares, so a
    class is less than one image off count * class size / images.
    Returns a boolean mask [images] with `count` true values, a pure function of the arguments.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    quotas, remainders = np.divmod(count * sizes.astype(np.int64), len(labels))
    largest = np.argsort(-remainders, kind="stable")[: count - quotas.sum()]
    quotas[largest] += 1
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    chosen = np.zeros(len(labels), bool)
    for label, quota in zip(classes, quotas, strict=True):
        chosen[shuffled[labels[shuffled] == label][:quota]] = True
    return chosen


if __name__ == "__main__":
    run(main)
