"""The command line of `python -m stages reconstruct`."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, TextIO

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from tqdm import tqdm

from stages.core.arrays import Bytes, Float64
from stages.core.errors import ParamsError, StageError
from stages.core.files import write_all
from stages.core.params import choose_model, read_params
from stages.core.schema import Params
from stages.core.style import STYLE, png
from stages.core.tables import csv
from stages.tools.reconstruct.inputs import Source, expand, open_source
from stages.tools.reconstruct.sheets import draw_digit, draw_sheet
from stages.tools.trained import (
    BATCH,
    UNUSUAL_PERCENTILE,
    Reconstructions,
    TrainedModel,
    encode,
    load_model,
    reconstruct,
)

SHOWN = 20  # images of an array in its picture

HELP = """\
Let a trained autoencoder encode and reconstruct your own digits.

Each image file is turned upright (EXIF), and its digit is separated from the paper,
cropped, scaled and centred as in MNIST. Write one digit with a thick pen on plain or
ruled paper. IDX files (also .gz) and .npy arrays of uint8 are used as they are.

Writes a picture of each input and codes.csv, or codes.npy and inputs.csv with
--codes-only. docs/your-own-digits.md describes these files.
"""
EPILOG = """\
exit status: 0, or 1 if an input could not be used (the others are), 2 for wrong arguments.

examples:
  python -m stages reconstruct --model deep my_digit.png photo.jpg
  python -m stages reconstruct --model shallow --ink light chalk/ --out chalk-out/
  python -m stages reconstruct --model deep --codes-only data/raw/t10k-images-idx3-ubyte.gz
"""


class Summary(NamedTuple):
    """The results for all images of an input."""

    first_images: Bytes  # [at most SHOWN, height, width]
    first: Reconstructions  # of these
    squared_error: Float64  # [images], summed over pixels


def main() -> None:
    args = parse_arguments()
    params = read_params(Params)
    chosen = choose_model(params, args.model)
    paths, problems = expand(args.inputs)
    tables = [args.out / table for table in (("codes.npy", "inputs.csv") if args.codes_only else ("codes.csv",))]
    pictures = picture_paths(args.out, paths, tables)
    count = len(paths) + len(problems)
    for problem in problems:
        say(f"error: {problem}", sys.stderr)
    if paths:
        model = load_model(chosen)
        if args.codes_only:
            encode_inputs(model, paths, args, problems)
        else:
            reconstruct_inputs(model, pictures, args, params.figures.dpi, problems)
        say(f"wrote {' and '.join(map(str, tables))}{'' if args.codes_only else ' and the pictures'}", sys.stdout)
    if problems:
        raise StageError(f"{len(problems)} of {count} inputs could not be used.")


def parse_arguments() -> argparse.Namespace:
    """The checked command line. Wrong arguments end the process with status 2 and a sentence."""
    parser = argparse.ArgumentParser(
        prog="python -m stages reconstruct",
        description=HELP,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("inputs", nargs="+", type=Path, metavar="INPUT", help="image file, folder of image files, or array")
    add("--model", required=True, metavar="NAME", help="a model of params.yaml or presets.yaml, such as deep")
    add("--out", type=Path, default=Path("reconstructions"), metavar="DIR", help="output folder (%(default)s/)")
    add("--ink", choices=("auto", "dark", "light"), default="auto", help="ink of the digits (auto: detect it)")
    add("--as-is", action="store_true", help="the images are in MNIST's form: light on black, of the model's size")
    add("--codes-only", action="store_true", help="only encode; for whole data sets")
    args = parser.parse_args()
    if args.as_is and args.ink != "auto":
        parser.error("--ink has no effect with --as-is; leave out one of them")
    if args.out.exists() and not args.out.is_dir():
        parser.error(f"--out {args.out} is a file, but must be a folder")
    if any(path.is_dir() and path.resolve() == args.out.resolve() for path in args.inputs):
        parser.error(f"--out {args.out} is also an input; the next run would read this run's pictures as digits")
    args.ink = None if args.ink == "auto" else args.ink
    return args


def use_inputs(
    model: TrainedModel,
    paths: list[Path],
    args: argparse.Namespace,
    table: BinaryIO,
    use: Callable[[Source], str],
    problems: list[str],
) -> None:
    """Apply `use` to every input and print what it returns; add a sentence to `problems` for each unusable input.

    table: the open file that `use` appends to; what it appended for an unusable input is removed.
    Raises StageError if no input could be used.
    """
    used = False
    for path in paths:
        start = table.tell()
        try:
            source = open_source(path, model.height, model.width, BATCH, args.ink, args.as_is)
            kind = f"{source.digit.ink} ink" if source.digit else f"images: {source.images}"
            say(f"{path}: {kind}; {use(source)}", sys.stdout)
            used = True
        except StageError as error:
            problems.append(str(error))
            say(f"error: {error}", sys.stderr)
            table.seek(start)
            table.truncate()
    if not used:
        raise StageError("no input could be used; nothing was written.")


def say(line: str, stream: TextIO) -> None:
    """Print a line, but go on if the stream cannot show it or its reader has gone: files matter more."""
    with suppress(UnicodeError, OSError):
        print(printable(line), file=stream, flush=True)


def printable(text: str) -> str:
    """The text on one line, whatever characters a file's name has."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def batches(source: Source) -> Iterator[Bytes]:
    """The images of an input; a terminal shows a progress bar if there is more than one batch."""
    with tqdm(total=source.images, unit="image", disable=None if source.images > BATCH else True) as bar:
        for images in source.batches:
            yield images
            bar.update(len(images))


# --- pictures and codes.csv --------------------------------------------------------------


def reconstruct_inputs(
    model: TrainedModel, pictures: dict[Path, Path], args: argparse.Namespace, dpi: int, problems: list[str]
) -> None:
    """Write codes.csv and a picture for every input.

    pictures: the picture's path for each input. problems: see `use_inputs`.
    Raises StageError if no input could be used.
    """

    def write_rows(table: BinaryIO) -> None:
        def use(source: Source) -> str:
            summary = append_rows(model, source, table)
            outcome = describe(model, summary)
            title = f"{model.name}: {outcome}".replace("; ", "\n", 1)
            write_all({pictures[source.path]: draw(model, source, summary, title, dpi)})
            return outcome

        use_inputs(model, list(pictures), args, table, use, problems)

    write_all({args.out / "codes.csv": write_rows})


def append_rows(model: TrainedModel, source: Source, table: BinaryIO) -> Summary:
    """Reconstruct all images of an input and append their rows to the open codes.csv."""
    done, errors = 0, []
    for images in batches(source):
        batch = reconstruct(model, images)
        if not done:
            first = images[:SHOWN], batch.first(SHOWN)
        table.write(csv(rows(source.path, done, batch), digits=9, header=table.tell() == 0))
        done += len(images)
        errors.append(batch.squared_error)
    return Summary(*first, np.concatenate(errors))


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


def describe(model: TrainedModel, summary: Summary) -> str:
    """The result for an input, in one line."""
    errors = summary.squared_error
    unusual = int((errors > model.unusual_error).sum())
    limit = f"above {model.unusual_error:.2f}, the limit for {UNUSUAL_PERCENTILE} % of the test digits"
    if len(errors) > 1:
        return f"mean squared error {errors.mean():.2f}; unusual: {unusual}, {limit}"
    error = f"squared error {errors[0]:.2f}, higher than {summary.first.percentile[0]:.1f} % of the test digits"
    return error + f"; unusual: {limit}" * unusual


def draw(model: TrainedModel, source: Source, summary: Summary, title: str, dpi: int) -> bytes:
    """The picture of an input, as PNG bytes."""
    first = summary.first
    with plt.rc_context(STYLE):
        if source.digit:
            figure = draw_digit(source.digit, first.images[0], model.latent_dim, float(first.squared_error[0]), title)
        else:
            figure = draw_sheet(summary.first_images, first.images, first.squared_error, title)
        return png(figure, dpi)


def picture_paths(out: Path, inputs: list[Path], tables: list[Path]) -> dict[Path, Path]:
    """A path of a picture for each input: its stem, with a number if the path is taken already or is an input.

    tables: the other output files. Raises ParamsError if one of them is an input.
    """
    taken = {same_file(path) for path in inputs}
    for table in tables:
        if same_file(table) in taken:
            raise ParamsError(f"{table} is an input and would be overwritten; choose another --out.")
    pictures = {}
    for path in inputs:
        stem = path.stem[:50]  # leaves room for a number and a temporary suffix in a file's name
        number, picture = 1, out / f"{stem}.png"
        while same_file(picture) in taken:
            number += 1
            picture = out / f"{stem}-{number}.png"
        taken.add(same_file(picture))
        pictures[path] = picture
    return pictures


def same_file(path: Path) -> str:
    """Equal for paths of the same file on any system, including those that ignore case."""
    return str(path.parent.resolve() / path.name).casefold()


# --- codes.npy ---------------------------------------------------------------------------


def encode_inputs(model: TrainedModel, paths: list[Path], args: argparse.Namespace, problems: list[str]) -> None:
    """Write codes.npy and inputs.csv. problems: see `use_inputs`.

    Raises StageError if no input could be used.
    """
    inputs: list[tuple[str, int]] = []

    def write_codes(codes: BinaryIO) -> None:
        def use(source: Source) -> str:
            append_codes(model, source, codes)
            inputs.append((printable(str(source.path)), source.images))
            return "encoded"

        write_header(codes, 0, model.latent_dim)
        use_inputs(model, paths, args, codes, use, problems)
        codes.seek(0)
        write_header(codes, sum(images for _, images in inputs), model.latent_dim)

    def write_inputs(table: BinaryIO) -> None:
        encoded = pd.DataFrame(inputs, columns=["file", "images"])
        encoded.insert(1, "first", encoded["images"].cumsum() - encoded["images"])
        table.write(csv(encoded))

    write_all({args.out / "codes.npy": write_codes, args.out / "inputs.csv": write_inputs})


def append_codes(model: TrainedModel, source: Source, file: BinaryIO) -> None:
    """Append the codes of all images of an input, float32 [images, latent_dim], to an open file."""
    for images in batches(source):
        file.write(encode(model, images).astype("<f4").tobytes())


def write_header(file: BinaryIO, images: int, latent_dim: int) -> None:
    """Write the start of a .npy file; NumPy pads it, so its length does not depend on the number of images."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (images, latent_dim)}
    np.lib.format.write_array_header_1_0(file, header)
