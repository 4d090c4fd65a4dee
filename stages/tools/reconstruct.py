"""Let a trained autoencoder encode and reconstruct your own digits."""

import argparse
import sys
from pathlib import Path
from typing import BinaryIO, NamedTuple, Never

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from tqdm import tqdm

from stages.core.arrays import Bytes
from stages.core.errors import ParamsError, StageError, run
from stages.core.files import replacing, replacing_all, write_all
from stages.core.params import choose_model, read_params
from stages.core.schema import Params
from stages.core.style import STYLE, png
from stages.core.tables import csv
from stages.drawing.sheets import draw_digit, draw_sheet
from stages.images.inputs import Source, expand, open_source
from stages.tools.trained import BATCH, UNUSUAL_PERCENTILE, Reconstructions, TrainedModel, load_model, reconstruct

SHOWN = 20  # images of an array that are drawn

HELP = """\
Let a trained autoencoder encode and reconstruct your own digits.

An image file is brought into the form of the training data: upright (EXIF), grey, light
ink on black paper, cropped, scaled and centred by mass as MNIST was made. One digit on
even paper, written with a thick pen, works best. IDX files (also .gz) and .npy arrays of
uint8 [images, height, width] or [height, width] are taken as they are.
"""
EPILOG = """\
written to --out:
  <name>.png   input, what the model saw, reconstruction, error; the first 20 of an array
  codes.csv    a row for every image: file, index in it, squared_error (summed over
               pixels from 0 to 1), mse (the same per pixel), percentile (of test digits
               with a smaller error), unusual (above the 99th), latent_1, latent_2, ...
or, with --codes-only:
  codes.npy    float32 [images, latent_dim], all inputs one after the other
  inputs.csv   file, first (its first row in codes.npy), images (its number of rows)

exit status: 0, or 1 if an input could not be used (the others are), 2 for wrong arguments.

examples:
  python -m stages reconstruct --model deep my_digit.png photo.jpg
  python -m stages reconstruct --model shallow --ink light chalk/ --out chalk-out/
  python -m stages reconstruct --model deep --codes-only data/raw/t10k-images-idx3-ubyte.gz
"""


class Summary(NamedTuple):
    """What came of all images of an input."""

    first_images: Bytes  # [at most SHOWN, height, width]
    first: Reconstructions  # of these
    squared_error: float  # mean over the images, of the sum over pixels
    unusual: int  # how many images are


def main() -> None:
    args = parse_arguments()
    params = read_params(Params)
    chosen = choose_model(params, args.model)
    paths, problems = expand(args.inputs)
    tables = [args.out / table for table in (("codes.npy", "inputs.csv") if args.codes_only else ("codes.csv",))]
    pictures = picture_paths(args.out, paths, tables)
    for problem in problems:
        print(f"error: {printable(problem)}", file=sys.stderr)

    failed = len(problems)
    if paths:
        model = load_model(chosen)
        if args.codes_only:
            failed += encode_inputs(model, paths, args)
        else:
            failed += reconstruct_inputs(model, pictures, args, params.figures.dpi)
        print(f"wrote {' and '.join(map(str, tables))}{'' if args.codes_only else ', and the pictures beside it'}")
    if failed:
        raise StageError(f"{failed} of {len(paths) + len(problems)} inputs could not be used.")


def parse_arguments() -> argparse.Namespace:
    """The command line, checked; ends the process with status 2 and a sentence if it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m stages reconstruct",
        description=HELP,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help="image file, folder of them, or array")
    parser.add_argument("--model", required=True, metavar="NAME", help="a model or preset in params.yaml, say deep")
    parser.add_argument(
        "--out", type=Path, default=Path("reconstructions"), metavar="DIR", help="folder to write to (%(default)s/)"
    )
    parser.add_argument(
        "--ink",
        choices=("auto", "dark", "light"),
        default="auto",
        help="whether the digits are darker or lighter than their paper (auto: found out for each image, and said)",
    )
    parser.add_argument(
        "--as-is",
        action="store_true",
        help="the images are in MNIST's form already (light on black, the model's size); change nothing",
    )
    parser.add_argument("--codes-only", action="store_true", help="only encode; for whole data sets")
    args = parser.parse_args()
    if args.as_is and args.ink != "auto":
        parser.error("--as-is changes nothing, so --ink has no meaning beside it")
    if args.out.exists() and not args.out.is_dir():
        parser.error(f"--out {args.out} is a file, but has to be a folder")
    if any(path.is_dir() and path.resolve() == args.out.resolve() for path in args.inputs):
        parser.error(f"--out {args.out} is an input, too; the next run would take this one's pictures for digits")
    args.ink = None if args.ink == "auto" else args.ink
    return args


# --- pictures and codes.csv --------------------------------------------------------------


def reconstruct_inputs(model: TrainedModel, pictures: dict[Path, Path], args: argparse.Namespace, dpi: int) -> int:
    """Write a picture for every input and codes.csv; returns how many inputs could not be used.

    pictures: the picture's path by input. Raises StageError if no input could be used.
    """
    failed = 0
    with replacing(args.out / "codes.csv") as table:
        for path, picture in pictures.items():
            start = table.tell()
            try:
                source = open_source(path, model.height, model.width, BATCH, args.ink, args.as_is)
                summary = append_rows(model, source, table)
            except StageError as error:
                failed += 1
                reject(error, table, start)
                continue
            outcome = describe(model, source, summary)
            write_all({picture: draw(model, source, summary, f"{model.name}: {outcome}".replace("; ", "\n", 1), dpi)})
            print(f"{printable(str(path))}: {treatment(source, args)}; {outcome}", flush=True)
        check_any_used(failed, len(pictures))
    return failed


def append_rows(model: TrainedModel, source: Source, table: BinaryIO) -> Summary:
    """Reconstruct all images of an input and append their rows to codes.csv, open as `table`."""
    done, unusual, total = 0, 0, 0.0
    with progress(source) as bar:
        for images in source.batches:
            batch = reconstruct(model, images)
            if done == 0:
                first_images, first = images[:SHOWN], batch.first(SHOWN)
            table.write(csv(rows(source.path, done, batch), digits=9, header=table.tell() == 0))
            done += len(images)
            unusual += int(batch.unusual.sum())
            total += float(batch.squared_error.sum())
            bar.update(len(images))
    return Summary(first_images, first, total / done, unusual)


def rows(path: Path, start: int, batch: Reconstructions) -> pd.DataFrame:
    """The rows of codes.csv for a batch whose first image has the index `start` in its file."""
    columns = {
        "file": printable(str(path)),
        "index": np.arange(start, start + len(batch.codes)),
        "squared_error": batch.squared_error,
        "mse": batch.squared_error / batch.images[0].size,
        "percentile": batch.percentile,
        "unusual": batch.unusual,
    }
    columns |= {f"latent_{number}": values for number, values in enumerate(batch.codes.T, 1)}
    return pd.DataFrame(columns)


def describe(model: TrainedModel, source: Source, summary: Summary) -> str:
    """What the numbers say of an input, in one line."""
    limit = model.unusual_error
    unlike = f"unlike the training data: above {limit:.2f}, which {UNUSUAL_PERCENTILE} % of the test digits stay below"
    if source.images > 1:
        return f"mean squared error {summary.squared_error:.2f}; {summary.unusual} {unlike}"
    error = f"squared error {summary.squared_error:.2f}, above that of {summary.first.percentile[0]:.1f} % of the test"
    return f"{error} digits{'; ' + unlike if summary.unusual else ''}"


def draw(model: TrainedModel, source: Source, summary: Summary, title: str, dpi: int) -> bytes:
    """The picture of an input, as PNG bytes."""
    first = summary.first
    with plt.rc_context(STYLE):
        if source.digit:
            figure = draw_digit(source.digit, first.images[0], model.latent_dim, float(first.squared_error[0]), title)
        else:
            figure = draw_sheet(summary.first_images, first.images, first.squared_error, title)
        return png(figure, dpi)


# --- codes.npy ---------------------------------------------------------------------------


def encode_inputs(model: TrainedModel, paths: list[Path], args: argparse.Namespace) -> int:
    """Write codes.npy and inputs.csv; returns how many inputs could not be used.

    Raises StageError if no input could be used.
    """
    failed = encoded = 0
    inputs = []
    with replacing_all([args.out / "codes.npy", args.out / "inputs.csv"]) as (codes, table):
        write_header(codes, 0, model.latent_dim)
        for path in paths:
            start = codes.tell()
            try:
                source = open_source(path, model.height, model.width, BATCH, args.ink, args.as_is)
                append_codes(model, source, codes)
            except StageError as error:
                failed += 1
                reject(error, codes, start)
                continue
            inputs.append((printable(str(path)), encoded, source.images))
            encoded += source.images
            print(f"{printable(str(path))}: {treatment(source, args)}; encoded", flush=True)
        check_any_used(failed, len(paths))
        codes.seek(0)
        write_header(codes, encoded, model.latent_dim)
        table.write(csv(pd.DataFrame(inputs, columns=["file", "first", "images"])))
    return failed


def append_codes(model: TrainedModel, source: Source, file: BinaryIO) -> None:
    """Append the codes of all images of an input, float32 [images, latent_dim], to an open file."""
    with progress(source) as bar:
        for images in source.batches:
            codes = model.encode(images.reshape(len(images), -1) / np.float32(255))
            file.write(codes.astype("<f4").tobytes())
            bar.update(len(images))


def write_header(file: BinaryIO, images: int, latent_dim: int) -> None:
    """The start of a .npy file of codes; NumPy leaves room in it, so it is as long for any number of images."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (images, latent_dim)}
    np.lib.format.write_array_header_1_0(file, header)


# --- both --------------------------------------------------------------------------------


def progress(source: Source) -> "tqdm[Never]":
    """A live bar on a terminal, for inputs of more than one batch."""
    return tqdm(total=source.images, unit="image", disable=None if source.images > BATCH else True)


def reject(error: StageError, file: BinaryIO, start: int) -> None:
    """Report an input that cannot be used, and take back what was written of it since `start`."""
    print(f"error: {printable(str(error))}", file=sys.stderr, flush=True)
    file.seek(start)
    file.truncate()


def check_any_used(failed: int, inputs: int) -> None:
    """Raise StageError if all inputs failed."""
    if failed == inputs:
        raise StageError("no input could be used, so nothing was written.")


def treatment(source: Source, args: argparse.Namespace) -> str:
    """What was done to an input before the model saw it, in words."""
    if not source.digit:
        return (
            f"{source.images} image{'s' * (source.images > 1)}, taken as {'they are' if source.images > 1 else 'it is'}"
        )
    if args.as_is:
        return "taken as it is"
    ink = f"{source.digit.ink} ink"
    if args.ink:
        return f"{ink}, as given{', and inverted' if source.digit.ink == 'dark' else ''}"
    return f"{ink} found{' and inverted' if source.digit.ink == 'dark' else ''}"


def printable(text: str) -> str:
    """The text on one line that any terminal and table takes, whatever a file is called."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def picture_paths(out: Path, inputs: list[Path], tables: list[Path]) -> dict[Path, Path]:
    """A picture's path by input: its stem, with a number where that is taken already or an input.

    tables: the other files that are going to be written.
    Raises ParamsError if one of those is an input.
    """
    taken = {same_file(path) for path in inputs}
    for table in tables:
        if same_file(table) in taken:
            raise ParamsError(f"{table} is an input and would be overwritten; choose another --out.")
    pictures = {}
    for path in inputs:
        stem = path.stem[:50]  # with its number and, for a while, a suffix it has to be a possible file name
        number, picture = 1, out / f"{stem}.png"
        while same_file(picture) in taken:
            number += 1
            picture = out / f"{stem}-{number}.png"
        taken.add(same_file(picture))
        pictures[path] = picture
    return pictures


def same_file(path: Path) -> str:
    """Equal for paths that name the same file on any system, also where case doesn't count."""
    return str(path.parent.resolve() / path.name).casefold()


if __name__ == "__main__":
    run(main)
