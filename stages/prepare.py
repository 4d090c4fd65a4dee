"""Turn the four raw IDX files into train, validation and test arrays.

    python -m stages.prepare

Writes data/prepared/{train,validation,test}_{images,labels}.npy: images uint8
[images, height, width] from 0 to 255, labels uint8 [images]. Validation images come
out of the training images, the same share of every class. Two seconds on MNIST.
"""

import hashlib
from pathlib import Path

import numpy as np

from stages import files
from stages.errors import ParamsError, StageError, run
from stages.idx import read_idx
from stages.params import read_params, refuse_arguments, stage_arguments

# EMNIST puts its own name in front and calls the test set "test"; some copies write ".idx3".
PATTERNS = {
    ("train", "images"): ["*train-images?idx3-ubyte"],
    ("train", "labels"): ["*train-labels?idx1-ubyte"],
    ("test", "images"): ["*t10k-images?idx3-ubyte", "*test-images?idx3-ubyte"],
    ("test", "labels"): ["*t10k-labels?idx1-ubyte", "*test-labels?idx1-ubyte"],
}


def find_raw(folder: Path) -> dict[tuple[str, str], Path]:
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


def read_split(paths: dict[tuple[str, str], Path], split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [images, height, width] and labels uint8 [images] of "train" or "test".

    Raises StageError if a file is malformed or the two differ in number.
    """
    images, labels = read_idx(paths[split, "images"], 3), read_idx(paths[split, "labels"], 1)
    if len(images) != len(labels):
        raise StageError(
            f"{paths[split, 'images']} has {len(images)} images, but {paths[split, 'labels']} has "
            f"{len(labels)} labels; the numbers have to be equal."
        )
    return images, labels


def choose_validation(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Choose `count` positions at random, stratified: every class gives its share of them.

    labels: integers [images]; 0 < count < images. Shares are rounded by the largest
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


def main() -> None:
    refuse_arguments(stage_arguments(__doc__))
    params = read_params().prepare
    paths = find_raw(Path(params.raw))
    sums = Path(params.raw) / "SHA256SUMS"
    if sums.exists():
        verify_digests(list(paths.values()), sums)
        print(f"{params.raw}: the four files match {sums.name}")
    else:
        print(f"note: {params.raw} has no SHA256SUMS, so nothing was verified")

    images, labels = read_split(paths, "train")
    test_images, test_labels = read_split(paths, "test")
    if images.shape[1:] != test_images.shape[1:]:
        raise StageError(
            f"{paths['train', 'images']} has images of {images.shape[1]}×{images.shape[2]} pixels, but "
            f"{paths['test', 'images']} of {test_images.shape[1]}×{test_images.shape[2]}; they have to be equal."
        )
    if params.validation_images >= len(images):
        raise ParamsError(
            f"params.yaml: prepare.validation_images is {params.validation_images}, but has to be below "
            f"{len(images)}, the number of images in {paths['train', 'images']}."
        )

    if params.validation_images:
        held_out = choose_validation(labels, params.validation_images, params.seed)
        validation_images, validation_labels = images[held_out], labels[held_out]
        images, labels = images[~held_out], labels[~held_out]
    else:
        print("note: prepare.validation_images is 0, so training is monitored on the test images")
        validation_images, validation_labels = test_images, test_labels

    files.write_files(
        {
            files.images_path("train"): files.npy(images),
            files.labels_path("train"): files.npy(labels),
            files.images_path("validation"): files.npy(validation_images),
            files.labels_path("validation"): files.npy(validation_labels),
            files.images_path("test"): files.npy(test_images),
            files.labels_path("test"): files.npy(test_labels),
        }
    )
    print(
        f"{len(images)} training, {len(validation_images)} validation and {len(test_images)} test images "
        f"of {images.shape[1]}×{images.shape[2]} pixels, {len(np.unique(labels))} classes"
    )


if __name__ == "__main__":
    run(main)
