"""What the page asks, and the answers: all that is on screen, computed from a scene."""

import base64
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stages.applications.anomalies import combined_score, squared_distances
from stages.core.arrays import Bytes, Float32, Floats, Int64
from stages.core.errors import StageError
from stages.core.shown import first_of_each_class
from stages.core.style import colours
from stages.explorer import atlas as atlases
from stages.explorer.library import Library, image_of
from stages.explorer.measured import model_sentence, pair_sentences, pca_sentence
from stages.explorer.pixels import PREFIX, data_uri, grey, read_drawing, signed, sprite
from stages.explorer.scenes import Scene, read_link, write_link
from stages.explorer.sheet import sheet_png
from stages.tools.reconstruct.digits import centre, read_digit
from stages.tools.reconstruct.files import ImageFileError
from stages.tools.reconstruct.ink import find_ink
from stages.tools.trained import UNUSUAL_PERCENTILE, TrainedModel, decode_and_measure, encode, reconstruct

SIDE = 6  # models side by side; with more, the chosen one and those before it in params.yaml
PREVIEWED = 64  # numbers of a code at most, up to which both ends of every slider are decoded
STEPS = 9  # pictures of a walk
NEIGHBOURS = 6
RANKED = 20  # test digits that a model's best and worst buttons go through

Answer = dict[str, Any]  # JSON


class Seen(NamedTuple):
    """A scene with what its model makes of it."""

    scene: Scene
    model: TrainedModel
    image: Bytes  # [height, width]
    encoded: Float32  # [latent_dim], the digit's own code
    code: Float32  # [latent_dim], where the sliders are
    decoded: Float32  # [height, width], of `code`
    squared_error: float
    percentile: float  # of the test digits with a smaller error
    unusual: bool
    note: str  # what was done to a photo


def answer(library: Library, request: Any, default: str, uploads: Path) -> Answer:
    """Answer a request of the page; never raises, but says under "problem" what is wrong.

    request: "link" (a scene), maybe "drawing" (a PNG) or "photo" (a path) to replace its digit, or
    "act" (see `act`), and "want", the parts to answer (see PARTS). default: the model if the link names none.
    uploads: the folder that photos come from; they are removed once they have been read.
    """
    try:
        if not isinstance(request, dict):
            raise StageError("the page asked for nothing.")
        wanted = request.get("want") or []
        if not isinstance(wanted, list):
            raise StageError("the parts that the page wants are no list.")
        seen = look(library, request, default, uploads)
        found = essentials(library, seen)
        for part in PARTS:
            if part in wanted:
                found |= PARTS[part](library, seen)
        return found
    except StageError as error:
        return {"problem": sentence(str(error))}
    except Exception:  # a fault of this program: its trace belongs to the terminal, and the page lives on
        traceback.print_exc()
        return {"problem": "Something went wrong; the terminal in which the explorer runs has the details."}


def look(library: Library, request: Answer, default: str, uploads: Path) -> Seen:
    """The scene that a request describes, seen by its model. Raises StageError if it can't be."""
    height, width, note = library.height, library.width, ""
    scene = read_link(text(request, "link"), height, width, default)
    if request.get("drawing"):
        scene = scene._replace(image=prepare_drawing(read_drawing(request["drawing"]), height, width), code=None)
    elif request.get("photo"):
        image, note = prepare_photo(Path(text(request, "photo")), uploads, height, width)
        scene = scene._replace(image=image, code=None)
    elif request.get("act"):
        scene = act(library, scene, request["act"])
    return see(library, scene, note)


def see(library: Library, scene: Scene, note: str = "") -> Seen:
    """A scene as its model sees it. Raises StageError if there is no such model, digit or code."""
    model = library.model(scene.model)
    image = image_of(library, scene.digit) if scene.image is None else scene.image
    encoded = encode(model, image[None])[0]
    for code in (scene.code, scene.start):
        if code is not None and code.shape != encoded.shape:
            raise StageError(f"the link's code has {len(code)} numbers, but {model.name} has {model.latent_dim}.")
    code = encoded if scene.code is None else scene.code
    found = decode_and_measure(model, image[None], code[None])
    return Seen(
        scene,
        model,
        image,
        encoded,
        code,
        found.images[0],
        float(found.squared_error[0]),
        float(found.percentile[0]),
        bool(found.unusual[0]),
        note,
    )


def prepare_drawing(drawing: Float32, height: int, width: int) -> Bytes:
    """A drawing in light ink, float [rows, columns] from 0 to 1, as the model sees it: uint8 [height, width].

    Raises StageError if there is no ink.
    """
    found = find_ink(drawing, "light")
    if found is None:
        raise StageError("the drawing shows no ink.")
    return centre(found.strength, height, width)


def prepare_photo(path: Path, uploads: Path, height: int, width: int) -> tuple[Bytes, str]:
    """An uploaded photo as the model sees it, uint8 [height, width], and what was done to it; removes the file.

    Raises StageError if it is no picture, shows no ink, or was not uploaded.
    """
    path = path.resolve()
    if not path.is_relative_to(uploads.resolve()):  # the page says the path, and could say any
        raise StageError("there is no such photo.")
    try:
        digit = read_digit(path, height, width)
    except ImageFileError as error:
        raise ImageFileError(Path(path.name), error.problem) from None
    except OSError:
        raise StageError("the photo did not arrive; send it again.") from None
    finally:
        path.unlink(missing_ok=True)
    return digit.image, f"{digit.ink} ink found{' and inverted' if digit.ink == 'dark' else ''}"


def act(library: Library, scene: Scene, wanted: Any) -> Scene:
    """The scene after a button: {"do": "random", "class", "best" or "worst"} picks a test digit, {"do": "mean" or
    "sample"} moves the code to a class. "label": the class.

    Raises StageError if there is no such button, or no digit of the class.
    """
    if not isinstance(wanted, dict):
        raise StageError(f"there is no button {str(wanted)[:40]!r}.")
    do, label = wanted.get("do"), wanted.get("label")
    name = scene.model
    random = np.random.default_rng()
    if do in ("mean", "sample") and isinstance(label, int):
        atlas = library.atlas(name)
        if do == "mean":
            code = atlas.class_means[atlases.class_of(atlas, label)]
        else:
            code = atlases.random_code(atlas, label, int(random.integers(2**32)))
        return scene._replace(code=code.astype(np.float32))
    here = -1 if scene.image is not None else scene.digit
    if do in ("best", "worst"):
        order = np.argsort(library.result(name).squared_error, kind="stable")[:: 1 if do == "best" else -1]
        digit = following(order[:RANKED], here)
    elif do == "class" and isinstance(label, int):
        digit = following(np.flatnonzero(library.test.labels == label), here)
    elif do == "random":
        digit = int(random.integers(len(library.test.labels)))
    else:
        raise StageError(f"there is no button {str(do)[:40]!r}.")
    return scene._replace(digit=digit, image=None, code=None)


def following(positions: Int64, here: int) -> int:
    """The position after `here`, or the first one if that is none of them or the last.

    Raises StageError if there are none.
    """
    if not len(positions):
        raise StageError("no test digit is of that class.")
    found = np.flatnonzero(positions == here)
    return int(positions[(int(found[0]) + 1) % len(positions)] if len(found) else positions[0])


# --- the parts of an answer ---------------------------------------------------------------


def essentials(library: Library, seen: Seen) -> Answer:
    """What every answer has: the link, the three pictures, the numbers and the code."""
    scene, model = seen.scene, seen.model
    own = scene.image is not None
    label = None if own else int(library.test.labels[scene.digit])
    distance = float(np.linalg.norm(seen.code - seen.encoded))
    return {
        "link": write_link(scene),
        "model": model.name,
        "digit": None if own else scene.digit,
        "label": label,
        "source": title_of(library, seen),
        "note": seen.note,
        "height": model.height,
        "width": model.width,
        "input": data_uri(seen.image),
        "reconstruction": data_uri(grey(seen.decoded)),
        "error": data_uri(signed(seen.decoded - seen.image / 255)),
        "squared_error": seen.squared_error,
        "percentile": seen.percentile,
        "unusual": unusual_sentence(model, own) if seen.unusual else "",
        "anomaly": None if scene.code is not None else anomaly_percentile(library, seen),
        "code": seen.code.tolist(),
        "encoded": seen.encoded.tolist(),
        "moved": scene.code is not None,
        "distance": distance,
        "frozen": scene.start is not None,
    }


def title_of(library: Library, seen: Seen) -> str:
    """What the digit on screen is."""
    if seen.scene.image is not None:
        return "Your digit, centred"
    label = library.test.labels[seen.scene.digit]
    return f"Test digit {seen.scene.digit}, {'an' if label in (8, 11, 18) else 'a'} {label}"


def anomaly_percentile(library: Library, seen: Seen) -> float:
    """Percentage of the test digits whose combined score is below that of the digit on screen, 0 to 100."""
    result = library.result(seen.model.name)
    distance = squared_distances(seen.encoded[None], result.code_mean, result.code_inverse_covariance)
    score = combined_score(np.array([seen.squared_error]), np.array([seen.image.sum() / 255]), distance)
    return float((result.combined < score).mean() * 100)


def unusual_sentence(model: TrainedModel, own: bool) -> str:
    what = "Unlike the training data" if own else "Unusually hard"
    return f"{what}: {UNUSUAL_PERCENTILE} % of the test digits have a squared error below {model.unusual_error:.1f}."


def side(library: Library, seen: Seen) -> Answer:
    """Every model's own reconstruction of the same digit, and what was measured of it."""
    names = side_by_side(library, seen.model.name)
    rows: list[Answer] = []
    for name in names:
        try:
            model = library.model(name)
            found = reconstruct(model, seen.image[None])
            rows.append(
                {
                    "name": name,
                    "picture": data_uri(grey(found.images[0])),
                    "difference": data_uri(signed(found.images[0] - seen.image / 255)),
                    "squared_error": float(found.squared_error[0]),
                    "percentile": float(found.percentile[0]),
                    "unusual": bool(found.unusual[0]),
                }
            )
        except StageError as error:
            rows.append({"name": name, "problem": sentence(str(error))})
    palette = colours(library.names)
    return {"side": [row | {"colour": palette[row["name"]]} for row in rows]}


def side_by_side(library: Library, chosen: str) -> list[str]:
    """The names of the models side by side: all, or as many as fit with the chosen one among them."""
    if len(library.names) <= SIDE:
        return library.names
    first = [name for name in library.names if name != chosen][: SIDE - 1]
    return [name for name in library.names if name in (chosen, *first)]


def measured(library: Library, seen: Seen) -> Answer:
    """What was measured of the models side by side, in sentences."""
    names, pixels = side_by_side(library, seen.model.name), library.height * library.width
    sentences: dict[str, str] = {}
    for name in names:
        try:
            write = pca_sentence if name in library.pca else model_sentence
            sentences[name] = write((library.pca | library.choices)[name], pixels)
        except StageError as error:
            sentences[name] = sentence(str(error))
    try:
        pairs = pair_sentences(names)
    except StageError as error:
        pairs = [sentence(str(error))]
    return {"measured": sentences, "pairs": pairs}


def sliders(library: Library, seen: Seen) -> Answer:
    """Where each slider begins and ends, and its marks."""
    atlas = library.atlas(seen.model.name)
    return {
        "sliders": {
            "low": atlas.ends[0].tolist(),
            "high": atlas.ends[1].tolist(),
            "mean": atlas.mean.tolist(),
            "quartiles": atlas.quartiles.T.tolist(),
            "means": atlas.class_means.tolist(),
        },
        "classes": atlas.classes.tolist(),
    }


def previews(library: Library, seen: Seen) -> Answer:
    """What the digit would be with a slider at its ends: a picture of two columns, a row per slider."""
    if seen.model.latent_dim > PREVIEWED:
        return {"previews": ""}
    atlas = library.atlas(seen.model.name)
    moved = atlases.traversals(atlas, seen.code)
    decoded = seen.model.decode(moved.reshape(-1, seen.model.latent_dim))
    pictures = grey(decoded).reshape(*moved.shape[:2], *seen.image.shape)
    return {"previews": data_uri(sprite(pictures))}


def walk(library: Library, seen: Seen) -> Answer:
    """The way from the frozen code to the digit's own, in STEPS pictures."""
    if seen.scene.start is None:
        return {"walk": None}
    codes = atlases.line(seen.scene.start, seen.encoded, STEPS)
    pictures = grey(seen.model.decode(codes)).reshape(-1, *seen.image.shape)
    return {"walk": {"pictures": [data_uri(picture) for picture in pictures], "start": seen.scene.start.tolist()}}


def map_points(library: Library, seen: Seen) -> Answer:
    """All test digits' places on the map, float32 [test images, 2], and their classes, uint8, packed."""
    atlas = library.atlas(seen.model.name)
    return {
        "map": {
            "points": packed(atlas.points),
            "labels": packed(library.test.labels),
            "share": atlas.share,
            "classes": np.unique(library.test.labels).tolist(),
        }
    }


def near(library: Library, seen: Seen) -> Answer:
    """The present code's place on the map, and the training digits whose codes lie nearest."""
    atlas = library.atlas(seen.model.name)
    found = atlases.neighbours(atlas, seen.code, NEIGHBOURS)
    return {
        "star": atlas.plane.encode(seen.code[None])[0].tolist(),
        "near": [
            {"label": int(library.train.labels[i]), "picture": data_uri(np.asarray(library.train.images[i]))}
            for i in found
        ],
    }


def examples(library: Library, seen: Seen) -> Answer:
    """The first test digit of every class, to click."""
    positions = first_of_each_class(library.test.labels)
    return {
        "examples": [
            {"label": int(library.test.labels[i]), "picture": data_uri(np.asarray(library.test.images[i]))}
            for i in positions
        ],
        "test_digits": len(library.test.labels),
    }


PARTS = {
    "side": side,
    "measured": measured,
    "sliders": sliders,
    "previews": previews,
    "walk": walk,
    "map": map_points,
    "near": near,
    "examples": examples,
}


def sheet(library: Library, request: Any, default: str, dpi: int) -> Answer:
    """The picture to save of a link's scene: every model side by side, and the moved code if there is one."""
    try:
        link = text(request, "link") if isinstance(request, dict) else ""
        scene = read_link(link, library.height, library.width, default)
        seen = see(library, scene)
        rows = [(f"{seen.model.name}, moved", seen.decoded, seen.squared_error)] if scene.code is not None else []
        for name in side_by_side(library, seen.model.name):
            with suppress(StageError):  # the page says already what is wrong with that model
                found = reconstruct(library.model(name), seen.image[None])
                rows.append((name, found.images[0], float(found.squared_error[0])))
        name = "my-digit" if scene.image is not None else f"test-digit-{scene.digit}"
        content = sheet_png(seen.image, rows, title_of(library, seen), dpi)
        return {"picture": PREFIX + base64.b64encode(content).decode(), "name": f"{name}.png"}
    except StageError as error:
        return {"problem": sentence(str(error))}


def restore(library: Library, query: dict[str, str], default: str) -> tuple[str, int | None, str]:
    """What the page's own fields show at first for a link's query: the model, the test digit, and the tab."""
    name = query.get("model", default)
    digit = query.get("digit", "0")
    known = digit.isdecimal() and len(digit) <= 9 and int(digit) < len(library.test.labels) and "image" not in query
    tab = "Map" if query.get("tab") == "Map" else "Code" if "code" in query or "from" in query else "Draw"
    return name if name in library.names else default, int(digit) if known else None, tab


def peek(library: Library, digit: object) -> Answer:
    """A test digit's picture, for the map."""
    try:
        if not isinstance(digit, int):
            raise StageError("a test digit is asked for by its number.")
        picture = data_uri(image_of(library, digit))
        return {"digit": digit, "label": int(library.test.labels[digit]), "picture": picture}
    except StageError as error:
        return {"problem": sentence(str(error))}


def packed(array: Floats | Bytes) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def text(request: Answer, key: str) -> str:
    value = request.get(key) or ""
    if not isinstance(value, str):
        raise StageError(f"the page's {key} is no text.")
    return value


def sentence(message: str) -> str:
    """A message with a capital letter, unless it begins with the name of a file or a model."""
    first = message.partition(" ")[0]
    return message[:1].upper() + message[1:] if first in ("a", "no", "port", "the", "there") else message
