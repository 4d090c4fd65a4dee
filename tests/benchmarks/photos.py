"""How close digits that are read from simulated pictures come to the originals: the table of docs/your-own-digits.md.

    python -m tests.benchmarks.photos

Takes the first training digits and the pictures of tests/test_digits.py. A minute on two cores.
"""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from stages.core.idx import read_idx
from stages.tools.reconstruct.digits import read_digit
from tests.conftest import NAMES, RAW
from tests.test_digits import SCENES, difference, enlarged, placed, save

PICTURES = {  # row of the table: a scene of the tests
    "photo with noise and light from one side": "dark from one side",
    "the same in a black frame": "dark noisy black frame",
    "in a drawn box": "dark outline",
    "on ruled paper, turned by 3°": "dark ruled askew",
    "on squared paper": "dark squared",
    "red on green of equal brightness, as JPEG": "coloured red on green",
    "60 pixels high in 3000×2000": "dark tiny",
}


def read_back(digits: np.ndarray, path: Path) -> Iterator[tuple[str, list[float]]]:
    """Every row of the table, with the difference of each digit uint8 [digits, 28, 28] that it is about."""

    def differences(pictures: Iterable[np.ndarray], path: Path) -> list[float]:
        read = (read_digit(save(picture, path), 28, 28).image for picture in pictures)
        return [difference(image, digit) for image, digit in zip(read, digits, strict=False)]

    yield "the images themselves", differences((digit / 255 for digit in digits), path)
    yield "enlarged 10 times", differences((1 - enlarged(digit, 280) for digit in digits), path)
    for row, scene in PICTURES.items():
        rng = np.random.default_rng(0)
        pictures = (SCENES[scene][0](rng, placed(rng, digit)) for digit in digits[:50])
        yield row, differences(pictures, path.with_suffix(".jpg" if "JPEG" in row else ".png"))


def main() -> None:
    digits = read_idx(RAW / NAMES["train"][0], 3)[:400]
    with tempfile.TemporaryDirectory() as folder:
        for row, found in read_back(digits, Path(folder) / "picture.png"):
            print(f"| {row} | {len(found)} | {np.mean(found):.1f} | {np.median(found):.1f} |", flush=True)


if __name__ == "__main__":
    main()
