"""Turn the four raw IDX files into train, validation and test arrays.

    python -m stages.prepare

Writes data/prepared/{train,validation,test}_{images,labels}.npy: images uint8
[images, height, width] from 0 to 255, labels uint8 [images]. Validation images come
out of the training images, the same share of every class. Classes that `prepare.classes`
leaves out are missing from both, never from the test images. Two seconds on MNIST.
"""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.core import files
from stages.core.arrays import Bytes
from stages.core.command import parse_no_arguments
from stages.core.errors import ParamsError, StageError, run
from stages.core.files import Split
from stages.core.idx import read_idx
from stages.core.params import read_params
from stages.core.schema import Params, Prepare

Raw = dict[tuple[str, str], Path]  # the four files, by split and content

# EMNIST puts its own name in front and calls the test set "test"; some copies write ".idx3".
PATTERNS = {
    ("train", "images"): ["*train-images?idx3-ubyte"],
    ("train", "labels"): ["*train-labels?idx1-ubyte"],
    ("test", "images"): ["*t10k-images?idx3-ubyte", "*test-images?idx3-ubyte"],
    ("test", "labels"): ["*t10k-labels?idx1-ubyte", "*test-labels?idx1-ubyte"],
}


def main() -> None:
    parse_no_arguments("prepare", __doc__)
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

    arrays: dict[Path, Bytes] = {}
    for split, (images, labels) in zip(files.SPLITS, (train, validation, test), strict=True):
        arrays |= {files.images_path(split): images, files.labels_path(split): labels}
    with files.replacing_all(list(arrays)) as outputs:
        for file, array in zip(outputs, arrays.values(), strict=True):
            files.write_npy(file, array)
    height, width = train.images.shape[1:]
    print(
        f"{len(train.images)} training, {len(validation.images)} validation and {len(test.images)} test images "
        f"of {height}×{width} pixels, {len(np.unique(train.labels))} classes"
    )


def find_raw(folder: Path) -> Raw:
    """The four IDX files in `folder`, gzipped or not, by split and content.

    Raises StageError if the folder or one of the files is missing or there are two to choose from.
    """
    if not folder.is_dir():
        raise StageError(f"{folder}, named by prepare.raw in params.yaml, is not a folder.")
    found = {}
    for (split, content), patterns in PATTERNS.items():
        matches = sorted(
            path
            for pattern in patterns
            for ending in ("", ".gz")
            for path in folder.glob(pattern + ending)
            if not path.name.startswith(".")
        )
        if not matches:
            wanted = " or ".join(pattern.replace("?", "-") for pattern in patterns)
            raise StageError(f"{folder} lacks the {split} {content}: a file {wanted}, or the same with .gz.")
        if len(matches) > 1:
            names = ", ".join(path.name for path in matches)
            raise StageError(f"{folder} has {len(matches)} files of {split} {content}, keep one of: {names}.")
        found[split, content] = matches[0]
    return found


def verify_digests(paths: list[Path], sums: Path) -> None:
    """Compare files with the SHA-256 digests listed in `sums` (`sha256sum`'s format).

    Raises StageError for a digest that differs or is not listed.
    """
    listed = {}
    for line in sums.read_text(encoding="utf-8", errors="replace").splitlines():
        digest, _, name = line.partition(" ")
        listed[name.lstrip(" *")] = digest.lower()
    for path in paths:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if path.name not in listed:
            raise StageError(f"{sums} has no line for {path.name}; add one or remove {sums.name}.")
        if digest != listed[path.name]:
            raise StageError(
                f"{path} has the SHA-256 digest {digest}, but {sums} lists {listed[path.name]}; "
                "the file is damaged or another one."
            )


def read_pair(raw: Raw, split: str) -> Split:
    """Images uint8 [images, height, width] and labels uint8 [images] of "train" or "test".

    Raises StageError if a file is malformed or the two differ in number.
    """
    images, labels = read_idx(raw[split, "images"], 3), read_idx(raw[split, "labels"], 1)
    if len(images) != len(labels):
        raise StageError(
            f"{raw[split, 'images']} has {len(images)} images, but {raw[split, 'labels']} has "
            f"{len(labels)} labels; the numbers have to be equal."
        )
    return Split(images, labels)


def check_fit(params: Prepare, raw: Raw, given: Split, test: Split) -> None:
    """Raise StageError or ParamsError if training and test images, or the settings and their number, do not fit."""
    size, test_size = given.images.shape[1:], test.images.shape[1:]
    if size != test_size:
        raise StageError(
            f"{raw['train', 'images']} has images of {size[0]}×{size[1]} pixels, but "
            f"{raw['test', 'images']} of {test_size[0]}×{test_size[1]}; they have to be equal."
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
    """Choose `count` positions at random, stratified: every class gives its share of them.

    labels: uint8 [images]; 0 < count < images. Shares are rounded by the largest
    remainder, so each class is at most one off count * class size / images.
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
