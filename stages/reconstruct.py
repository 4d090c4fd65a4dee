"""Let a trained autoencoder encode and reconstruct your own digits.

    python -m stages.reconstruct --model deep my_digit.png photo.jpg folder/ --out out/

Takes image files, folders of them, and arrays of images (IDX files, .npy). Writes a
picture for every file, input, what the model saw, reconstruction and error side by side,
and codes.csv with a row for every image. With --codes-only it writes codes.npy instead,
float32 [images, latent_dim], and inputs.csv, which says whose rows they are; arrays of
any length pass in bounded memory. Tells on standard output what was done to each file;
a file that can't be used is told in a sentence on standard error and doesn't stop the
others. No stage of the pipeline: it needs `dvc repro` to have run, and DVC doesn't run it.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from stages import files
from stages.digits import Digit
from stages.errors import ParamsError, StageError, run
from stages.figures import GREY, SIGNED, STYLE, png, show
from stages.inputs import Source, expand, open_source
from stages.measures import squared_error
from stages.params import choose_model, read_params

BATCH = 256  # images encoded at a time, always, so that XLA compiles once
SHOWN = 20  # images of an array that are drawn
UNUSUAL = 99  # percentile of the test errors

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
  python -m stages.reconstruct --model deep my_digit.png photo.jpg
  python -m stages.reconstruct --model shallow --ink light chalk/ --out chalk-out/
  python -m stages.reconstruct --model deep --codes-only data/raw/t10k-images-idx3-ubyte.gz
"""

Apply = Callable[[np.ndarray], np.ndarray]


class Autoencoder(NamedTuple):
    """A trained model as arrays and functions of arrays."""

    height: int
    width: int
    latent_dim: int
    encode: Apply  # float32 [images, pixels] in [0, 1] -> float32 [images, latent_dim]
    decode: Apply  # and back
    test_errors: np.ndarray  # float64 [test images], ascending, squared errors summed over pixels


class Scores(NamedTuple):
    codes: np.ndarray  # float32 [images, latent_dim]
    reconstructions: np.ndarray  # float32 [images, height, width] in [0, 1]
    squared_error: np.ndarray  # float64 [images], summed over pixels
    percentile: np.ndarray  # float64 [images], of the test digits with a smaller error, 0 to 100
    unusual: np.ndarray  # bool [images], above the 99th percentile of the test errors


class Outcome(NamedTuple):
    """What came of an input."""

    source: Source
    images: np.ndarray  # uint8 [at most SHOWN, height, width], its first
    scores: Scores  # of these
    squared_error: float  # the mean over all its images, of the sum over pixels
    unusual: int  # how many of them are above the 99th percentile of the test errors


Result = TypeVar("Result")


def load(name: str) -> Autoencoder:
    """The trained model `name` of params.yaml.

    Raises StageError if the model or its evaluation is missing, broken or of another size.
    """
    evaluation = files.read_evaluation(name)
    _, height, width = evaluation["images"].shape
    # TensorFlow takes seconds to load, and neither --help nor a wrong argument should wait for it.
    from stages.autoencoder import load_autoencoder
    from stages.engine import compile_model

    model = load_autoencoder(files.model_path(name))
    if model.input_shape[1] != height * width:
        raise StageError(
            f"{files.model_path(name)} takes {model.input_shape[1]} pixels, but {files.evaluation_path(name)} has "
            f"images of {height}×{width}; run `dvc repro`."
        )
    encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")
    return Autoencoder(
        height,
        width,
        encoder.output_shape[1],
        compile_model(encoder, BATCH),
        compile_model(decoder, BATCH),
        np.sort(evaluation["squared_error"]),
    )


def score(autoencoder: Autoencoder, images: np.ndarray) -> Scores:
    """Encode, reconstruct and measure at most BATCH images, uint8 [images, height, width]."""
    pixels = images.reshape(len(images), -1) / np.float32(255)
    codes = autoencoder.encode(pixels)
    reconstructions = autoencoder.decode(codes)
    errors = squared_error(pixels, reconstructions)
    percentile = np.searchsorted(autoencoder.test_errors, errors) / len(autoencoder.test_errors) * 100
    return Scores(codes, reconstructions.reshape(images.shape), errors, percentile, errors > limit(autoencoder))


def limit(autoencoder: Autoencoder) -> float:
    """The squared error above which an image is unlike the training data."""
    return float(np.percentile(autoencoder.test_errors, UNUSUAL))


# --- what is written ---------------------------------------------------------------------


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


def table(path: Path, start: int, scores: Scores, pixels: int) -> pd.DataFrame:
    """The rows of codes.csv for a batch whose first image has the index `start` in its file."""
    columns = {
        "file": printable(str(path)),
        "index": np.arange(start, start + len(scores.codes)),
        "squared_error": scores.squared_error,
        "mse": scores.squared_error / pixels,
        "percentile": scores.percentile,
        "unusual": scores.unusual,
    }
    columns |= {f"latent_{number}": values for number, values in enumerate(scores.codes.T, 1)}
    return pd.DataFrame(columns)


def csv(rows: pd.DataFrame, header: bool = True) -> bytes:
    return rows.to_csv(index=False, header=header, float_format="%.9g", lineterminator="\n").encode()


def draw_digit(digit: Digit, scores: Scores, title: str) -> Figure:
    """One digit side by side: the file, what the model saw, its reconstruction and the error.

    scores: of this image alone.
    """
    seen, reconstruction = digit.image / 255, scores.reconstructions[0]
    figure, axes = plt.subplots(1, 4, figsize=(7.6, 2.55), layout="constrained")
    for ax, name, picture in zip(
        axes,
        ("input", "what the model saw", "reconstruction", "error"),
        (squared(digit.grey), seen, reconstruction, reconstruction - seen),
        strict=True,
    ):
        draw_picture(ax, picture, error=name == "error")
        ax.set_title(name, fontsize=9)
    axes[0].set_xlabel(f"{digit.ink} ink", fontsize=8)
    axes[1].set_xlabel(f"{seen.shape[0]}×{seen.shape[1]} pixels", fontsize=8)
    axes[2].set_xlabel(f"from {scores.codes.shape[1]} numbers", fontsize=8)
    axes[3].set_xlabel(f"squares sum to {scores.squared_error[0]:.2f}", fontsize=8)
    finish(figure, axes.tolist(), title)
    return figure


def draw_sheet(images: np.ndarray, scores: Scores, title: str) -> Figure:
    """Ten images to a row, each above its reconstruction and error, squared errors below.

    images: uint8 [images, height, width], as many as scores has.
    """
    columns, blocks = min(10, len(images)), -(-len(images) // 10)
    figure, axes = plt.subplots(
        3 * blocks,
        columns,
        figsize=(max(3.6, 0.68 * columns + 1.9), 2.2 * blocks + 0.4),
        squeeze=False,
        layout="constrained",
    )
    for ax in axes.ravel():
        ax.set_axis_off()
    for index, (image, reconstruction) in enumerate(zip(images / 255, scores.reconstructions, strict=True)):
        block, column = divmod(index, 10)
        rows = axes[3 * block : 3 * block + 3, column]
        for ax, picture in zip(rows, (image, reconstruction, reconstruction - image), strict=True):
            ax.set_axis_on()
            draw_picture(ax, picture, error=ax is rows[2])
        rows[2].set_xlabel(f"{scores.squared_error[index]:.1f}", fontsize=8, labelpad=2)
        if column == 0:
            for ax, name in zip(rows, ("input", "reconstruction", "error"), strict=True):
                ax.set_ylabel(name, rotation=0, ha="right", va="center")
    finish(figure, axes.ravel().tolist(), title)
    return figure


def squared(picture: np.ndarray) -> np.ndarray:
    """The picture in the middle of a square, with nothing around it."""
    margins = [(max(picture.shape) - length) // 2 for length in picture.shape]
    return np.pad(picture, [(margin, margin) for margin in margins], constant_values=np.nan)


def draw_picture(ax: plt.Axes, picture: np.ndarray, error: bool) -> None:
    """Show a picture from 0 black to 1 white, or an error from -1 to 1, without axes."""
    show(ax, picture, **(SIGNED if error else GREY))


def finish(figure: Figure, axes: list[plt.Axes], title: str) -> None:
    """Add the title and the colours' legend."""
    colours = ScalarMappable(Normalize(SIGNED["vmin"], SIGNED["vmax"]), SIGNED["cmap"])
    bar = figure.colorbar(colours, ax=axes, ticks=[-1, 0, 1], shrink=0.7, aspect=14, pad=0.015)
    bar.ax.set_yticklabels(["−1 ink lost", "0", "+1 ink added"], fontsize=7)
    bar.outline.set_visible(False)
    figure.suptitle(title, fontsize=10)


# --- the command ---------------------------------------------------------------------------


def arguments(command_line: list[str]) -> argparse.Namespace:
    """The command line, checked; ends the process with status 2 and a sentence if it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.reconstruct",
        description=HELP,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help="image file, folder of them, or array")
    parser.add_argument("--model", required=True, metavar="NAME", help="a key of `models` in params.yaml, say deep")
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
    args = parser.parse_args(command_line)
    if args.as_is and args.ink != "auto":
        parser.error("--as-is changes nothing, so --ink has no meaning beside it")
    if args.out.exists() and not args.out.is_dir():
        parser.error(f"--out {args.out} is a file, but has to be a folder")
    if any(path.is_dir() and path.resolve() == args.out.resolve() for path in args.inputs):
        parser.error(f"--out {args.out} is an input, too; the next run would take this one's pictures for digits")
    args.ink = None if args.ink == "auto" else args.ink
    return args


def progress(images: int) -> Callable[[int], object]:
    """A function to tell the number of images done: a live bar on a terminal, where there are many, else nothing."""
    if images <= BATCH or not sys.stdout.isatty():
        return lambda _done: None
    from stages.backend import keras  # as in load

    bar = keras.utils.Progbar(images, unit_name="image")
    return lambda done: bar.update(done)


def each(
    paths: list[Path], file: BinaryIO, measure: Callable[[Path], Result], report: Callable[[Path, Result], None]
) -> int:
    """Measure every input and report on it; returns how many could not be used.

    `measure` may write to `file`; what it wrote for an input that fails is taken back.
    Raises StageError if none could be used.
    """
    failed = 0
    for path in paths:
        start = file.tell()
        try:
            result = measure(path)
        except StageError as error:
            failed += 1
            print(f"error: {printable(str(error))}", file=sys.stderr, flush=True)
            file.seek(start)
            file.truncate()
        else:
            report(path, result)
    if failed == len(paths):
        raise StageError("no input could be used, so nothing was written.")
    return failed


def measure(autoencoder: Autoencoder, source: Source, file: BinaryIO) -> Outcome:
    """Reconstruct all images of an input, and append their rows to codes.csv, open as `file`."""
    bar = progress(source.images)
    done, unusual, total = 0, 0, 0.0
    for images in source.batches:
        scores = score(autoencoder, images)
        rows = table(source.path, done, scores, autoencoder.height * autoencoder.width)
        file.write(csv(rows, header=file.tell() == 0))
        if done == 0:
            first_images, first_scores = images[:SHOWN], Scores(*(values[:SHOWN] for values in scores))
        done += len(images)
        unusual += int(scores.unusual.sum())
        total += float(scores.squared_error.sum())
        bar(done)
    return Outcome(source, first_images, first_scores, total / done, unusual)


def encode(autoencoder: Autoencoder, source: Source, file: BinaryIO) -> Source:
    """Append the codes of all images of an input, float32 [images, latent_dim], to an open file."""
    bar = progress(source.images)
    done = 0
    for images in source.batches:
        codes = autoencoder.encode(images.reshape(len(images), -1) / np.float32(255))
        file.write(codes.astype("<f4").tobytes())
        done += len(images)
        bar(done)
    return source


def write_header(file: BinaryIO, images: int, latent_dim: int) -> None:
    """The start of a .npy file of codes; NumPy leaves room in it, so it is as long for any number of images."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (images, latent_dim)}
    np.lib.format.write_array_header_1_0(file, header)


def treatment(digit: Digit, args: argparse.Namespace) -> str:
    """What was done to an image file, in words."""
    if args.as_is:
        return "taken as it is"
    how = f"{digit.ink} ink{', as told' if args.ink else ' found'}"
    if digit.ink == "light":
        return how
    return f"{how}{', and' if args.ink else ' and'} inverted"


def describe(autoencoder: Autoencoder, outcome: Outcome) -> str:
    """What the numbers say of an input, in one line."""
    unlike = (
        f"unlike the training data: above {limit(autoencoder):.2f}, which {UNUSUAL} % of the test digits stay below"
    )
    if outcome.source.images > 1:
        return f"mean squared error {outcome.squared_error:.2f}; {outcome.unusual} {unlike}"
    error = f"squared error {outcome.squared_error:.2f}, above that of {outcome.scores.percentile[0]:.1f} % of the test"
    return f"{error} digits{'; ' + unlike if outcome.unusual else ''}"


def open_input(path: Path, autoencoder: Autoencoder, args: argparse.Namespace) -> Source:
    return open_source(path, autoencoder.height, autoencoder.width, BATCH, args.ink, args.as_is)


def reconstruct_all(
    name: str, autoencoder: Autoencoder, args: argparse.Namespace, pictures: dict[Path, Path], dpi: int
) -> int:
    """Write a picture for every input and codes.csv; returns how many inputs could not be used."""
    failed = 0

    def report(path: Path, outcome: Outcome) -> None:
        line = describe(autoencoder, outcome)
        title = f"{name}: {line}".replace("; ", "\n", 1)
        digit, count = outcome.source.digit, outcome.source.images
        with plt.rc_context(STYLE):
            if digit:
                figure, line = draw_digit(digit, outcome.scores, title), f"{treatment(digit, args)}; {line}"
            else:
                figure = draw_sheet(outcome.images, outcome.scores, title)
                line = f"{count} image{'s' * (count > 1)}, taken as {'they are' if count > 1 else 'it is'}; {line}"
            save(pictures[path], png(figure, dpi))
        print(f"{printable(str(path))}: {line}", flush=True)

    def write(file: BinaryIO) -> None:
        nonlocal failed
        failed = each(
            list(pictures),
            file,
            lambda path: measure(autoencoder, open_input(path, autoencoder, args), file),
            report,
        )

    files.write_files({args.out / "codes.csv": write})
    return failed


def encode_all(autoencoder: Autoencoder, args: argparse.Namespace, paths: list[Path]) -> int:
    """Write codes.npy and inputs.csv; returns how many inputs could not be used."""
    failed, rows = 0, 0
    inputs: list[tuple[str, int, int]] = []

    def report(path: Path, source: Source) -> None:
        nonlocal rows
        inputs.append((printable(str(path)), rows, source.images))
        rows += source.images
        how = treatment(source.digit, args) if source.digit else "taken as it is"
        print(f"{printable(str(path))}: {how}; {source.images} image{'s' * (source.images > 1)} encoded", flush=True)

    def write(file: BinaryIO) -> None:
        nonlocal failed
        write_header(file, 0, autoencoder.latent_dim)
        failed = each(
            paths,
            file,
            lambda path: encode(autoencoder, open_input(path, autoencoder, args), file),
            report,
        )
        file.seek(0)
        write_header(file, rows, autoencoder.latent_dim)

    def write_inputs(file: BinaryIO) -> None:
        file.write(csv(pd.DataFrame(inputs, columns=["file", "first", "images"])))

    files.write_files({args.out / "codes.npy": write, args.out / "inputs.csv": write_inputs})
    return failed


def save(path: Path, content: bytes) -> None:
    """Write a file, all or nothing; StageError tells a failure of the output's disk from the table's."""
    try:
        files.write_files({path: content})
    except OSError as error:
        raise StageError(f"{error.filename}: {error.strerror}.") from None


def main() -> None:
    args = arguments(sys.argv[1:])
    params = read_params()
    name, settings = choose_model(params, [args.model])
    paths, problems = expand(args.inputs)
    tables = [args.out / table for table in (("codes.npy", "inputs.csv") if args.codes_only else ("codes.csv",))]
    pictures = picture_paths(args.out, paths, tables)
    for problem in problems:
        print(f"error: {printable(problem)}", file=sys.stderr)

    failed = len(problems)
    if paths:
        from stages.engine import use_threads  # as in load

        use_threads(settings.threads)
        autoencoder = load(name)
        if args.codes_only:
            failed += encode_all(autoencoder, args, paths)
        else:
            failed += reconstruct_all(name, autoencoder, args, pictures, params.figures.dpi)
        print(f"wrote {' and '.join(map(str, tables))}{'' if args.codes_only else ', and the pictures beside it'}")
    if failed:
        raise StageError(f"{failed} of {len(paths) + len(problems)} inputs could not be used.")


if __name__ == "__main__":
    run(main)
