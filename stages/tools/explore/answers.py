"""The page's questions, and the answers: all that is on screen, computed from a scene."""

import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from secrets import randbelow
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib import pyplot as plt
from pydantic import Base64Bytes, BaseModel, ConfigDict, Field

from stages.applications.anomalies import combined_score, mahalanobis
from stages.core.arrays import Bytes, Float32, Floats, Int64
from stages.core.codes import draw_gaussian
from stages.core.errors import StageError
from stages.core.linear import code_moments
from stages.core.shown import first_of_each_class
from stages.core.style import STYLE, class_colours, colours, png
from stages.tools.explore.atlas import class_codes, neighbours, traversals
from stages.tools.explore.library import Library, image_at
from stages.tools.explore.pixels import data_uri, grey, read_drawing, signed
from stages.tools.explore.scenes import Scene, write_scene
from stages.tools.reconstruct.digits import centre, read_digit
from stages.tools.reconstruct.files import ImageFileError
from stages.tools.reconstruct.sheets import draw_sheet
from stages.tools.trained import Reconstructions, TrainedModel, decode_and_measure, encode, reconstruct, scaled

SIDE = 6  # models side by side
PREVIEWED = 64  # numbers of the largest code whose sliders have pictures at their ends
STEPS = 9  # pictures of a walk
NEIGHBOURS = 6
RANKED = 20  # test digits that the best and worst buttons go through
DPI = 150

_plotting = threading.Lock()  # Matplotlib's settings belong to the whole process

Answer = dict[str, Any]  # JSON


class Question(BaseModel):
    """What the page asks in addition to the scene: the open tab, and a change of the scene."""

    model_config = ConfigDict(extra="forbid")

    tab: Literal["Draw", "Code", "Map"] = "Draw"
    picture: Base64Bytes = b""  # an image file of the next digit: a photo or a drawing
    photo: str = Field(default="", pattern=r"^[^/\x00]*$")  # the name of the photo's file
    do: Literal["random", "class", "best", "worst", "mean", "sample", "refine"] | None = None  # a button
    label: int | None = None  # the class that the button is for


class Seen(NamedTuple):
    """A scene, and what its model makes of it."""

    scene: Scene
    model: TrainedModel
    image: Bytes  # [height, width]
    encoded: Float32  # [latent_dim], the digit's own code
    code: Float32  # [latent_dim], where the sliders are
    result: Reconstructions  # of `code`, for one image


def start(library: Library) -> Answer:
    """What the page shows whatever the scene."""
    labels = library.test.labels
    return {
        "colours": colours(library.names, library.pca),
        "classes": class_colours(labels),
        "examples": first_of_each_class(labels).tolist(),
        "labels": labels.tolist(),
    }


def answer(library: Library, scene: Scene, question: Question) -> Answer:
    """What the page shows of a scene after the question's change. Raises StageError if that's impossible."""
    note = ""
    if question.photo:
        image, note = read_photo(question.picture, question.photo, library)
        scene = scene._replace(image=image, code=None)
    elif question.picture:
        scene = scene._replace(image=centre(read_drawing(question.picture), library.height, library.width), code=None)
    elif question.do:
        scene = act(library, scene, question.do, question.label)
    seen = see(library, scene)
    tabs = {"Draw": lambda *_: {}, "Code": code_tab, "Map": map_tab}
    return essentials(library, seen) | tabs[question.tab](library, seen) | {"note": note}


def read_photo(content: bytes, name: str, library: Library) -> tuple[Bytes, str]:
    """A photo as the models see it, uint8 [height, width], and a note on its ink. Raises StageError if it has none."""
    with tempfile.TemporaryDirectory(prefix="explorer-") as folder:
        path = Path(folder) / "photo"
        path.write_bytes(content)
        try:
            digit = read_digit(path, library.height, library.width)
        except ImageFileError as error:
            raise StageError(f"{name}: {error.problem}") from None
    return digit.image, f"{digit.ink} ink found{' and inverted' if digit.ink == 'dark' else ''}"


def see(library: Library, scene: Scene) -> Seen:
    """A scene as its model sees it. Raises StageError if the model, the digit, or the code doesn't exist."""
    model = library.entry(scene.model).model
    image = image_at(library.test, scene.digit) if scene.image is None else scene.image
    encoded = encode(model, image[None])[0]
    for code in (scene.code, scene.start):
        if code is not None and code.shape != encoded.shape:
            raise StageError(f"the link's code has {len(code)} numbers, but {model.name} has {model.latent_dim}.")
    code = encoded if scene.code is None else scene.code
    return Seen(scene, model, image, encoded, code, decode_and_measure(model, image[None], code[None]))


def act(library: Library, scene: Scene, do: str, label: int | None) -> Scene:
    """The scene after a button. "mean" and "sample" move the code to a class, and "refine" towards a smaller error.

    The others take a test digit. Raises StageError if there is no digit of the class.
    """
    if do == "refine":
        seen = see(library, scene)
        code = seen.model.refine(scaled(seen.image[None]), seen.code[None])[0]
        return scene._replace(code=code.astype(np.float32))
    if do in ("mean", "sample"):
        codes = class_codes(library.atlas(scene.model), label)
        random = np.random.default_rng()
        code = codes.mean(axis=0) if do == "mean" else draw_gaussian(random, *code_moments(codes), 1)[0]
        return scene._replace(code=code.astype(np.float32))
    here = -1 if scene.image is not None else scene.digit
    if do == "random":
        digit = randbelow(len(library.test.labels))
    elif do == "class":
        digit = following(np.flatnonzero(library.test.labels == label), here)
    else:
        order = np.argsort(library.entry(scene.model).result.squared_error, kind="stable")
        digit = following((order if do == "best" else order[::-1])[:RANKED], here)
    return scene._replace(digit=digit, image=None, code=None)


def following(positions: Int64, here: int) -> int:
    """The position after `here`, or the first one if none comes after it. Raises StageError if there are none."""
    if not len(positions):
        raise StageError("no test digit is of that class.")
    found = np.flatnonzero(positions == here)
    return int(positions[(int(found[0]) + 1) % len(positions)] if len(found) else positions[0])


def essentials(library: Library, seen: Seen) -> Answer:
    """What every answer has: the scene, the pictures, the numbers, the code, and the models side by side."""
    scene = seen.scene
    return shown(seen.image, seen.result) | {
        "scene": write_scene(scene),
        "label": None if scene.image is not None else int(library.test.labels[scene.digit]),
        "title": title_of(library, scene),
        "input": data_uri(seen.image),
        "anomaly": None if scene.code is not None else anomaly_percentile(library, seen),
        "code": seen.code.tolist(),
        "encoded": seen.encoded.tolist(),
        "distance": float(np.linalg.norm(seen.code - seen.encoded)),
        "side": [side_row(library, seen, name) for name in side_by_side(library, scene.model)],
    }


def shown(image: Bytes, result: Reconstructions) -> Answer:
    """A reconstruction of an image, as pictures and numbers."""
    return {
        "reconstruction": data_uri(grey(result.images[0])),
        "error": data_uri(signed(result.images[0] - image / 255)),
        "squared_error": float(result.squared_error[0]),
        "percentile": float(result.percentile[0]),
        "unusual": bool(result.unusual[0]),
    }


def title_of(library: Library, scene: Scene) -> str:
    if scene.image is not None:
        return "Your digit, centred"
    return f"Test digit {scene.digit}, class {library.test.labels[scene.digit]}"


def anomaly_percentile(library: Library, seen: Seen) -> float:
    """Percentage of the test digits with a smaller combined score, 0 to 100."""
    entry = library.entry(seen.model.name)
    distance = mahalanobis(seen.encoded[None], entry.result.code_mean, entry.inverse)
    score = combined_score(seen.result.squared_error, np.array([seen.image.sum() / 255]), distance)
    return float(np.searchsorted(entry.scores, score[0]) / len(entry.scores) * 100)


def side_by_side(library: Library, chosen: str) -> list[str]:
    """The names of the models side by side: the chosen one, and the first others."""
    first = [name for name in library.names if name != chosen][: SIDE - 1]
    return [name for name in library.names if name in (chosen, *first)]


def side_row(library: Library, seen: Seen, name: str) -> Answer:
    """A model's own reconstruction of the digit, or the reason that there is none."""
    try:
        entry = library.entry(name)
        return {"name": name, "fact": entry.fact} | shown(seen.image, reconstruct(entry.model, seen.image[None]))
    except StageError as error:
        return {"name": name, "problem": str(error)}


def code_tab(library: Library, seen: Seen) -> Answer:
    """The sliders: their ends and marks, what the digit looks like at their ends, and the steps of a walk."""
    atlas, scene = library.atlas(seen.model.name), seen.scene
    ends = traversals(atlas, seen.code) if seen.model.latent_dim <= PREVIEWED else seen.code[:0]
    steps = seen.code[:0] if scene.start is None else np.linspace(scene.start, seen.encoded, STEPS)
    nearest = int(np.linalg.norm(atlas.class_means - seen.encoded, axis=1).argmin())
    return {
        "low": atlas.ends[0].tolist(),
        "high": atlas.ends[1].tolist(),
        "mean": atlas.mean.tolist(),
        "quartiles": atlas.quartiles.T.tolist(),
        "class_means": dict(zip(atlas.classes.tolist(), atlas.class_means.tolist(), strict=True)),
        "looks_like": int(atlas.classes[nearest]),
        "previews": decoded(seen, ends),
        "walk": decoded(seen, steps),
    }


def decoded(seen: Seen, codes: Floats) -> list[str]:
    """Codes float [..., latent_dim] as pictures, in the same order."""
    if not codes.size:
        return []
    pictures = grey(seen.model.decode(codes.reshape(-1, seen.model.latent_dim)))
    return [data_uri(picture) for picture in pictures.reshape(-1, *seen.image.shape)]


def map_tab(library: Library, seen: Seen) -> Answer:
    """The places of the test digits and of the code, and the training digits with the nearest codes."""
    atlas = library.atlas(seen.model.name)
    nearest = neighbours(atlas, seen.code, NEIGHBOURS)
    return {
        "points": atlas.points.astype(np.float32).tolist(),
        "star": atlas.plane.encode(seen.code[None])[0].tolist(),
        "share": atlas.share,
        "near": [{"position": int(i), "label": int(library.train.labels[i])} for i in nearest],
    }


def sheet(library: Library, scene: Scene) -> bytes:
    """The picture to save, a PNG file: every model's reconstruction, and that of the moved code if there is one."""
    seen = see(library, scene)
    found = {f"{seen.model.name}, moved": seen.result} if scene.code is not None else {}
    for name in side_by_side(library, scene.model):
        with suppress(StageError):  # the page shows it
            found[name] = reconstruct(library.entry(name).model, seen.image[None])
    pictures = np.concatenate([result.images for result in found.values()])
    errors = np.concatenate([result.squared_error for result in found.values()])
    with _plotting, plt.rc_context(STYLE):
        figure = draw_sheet(np.stack([seen.image] * len(found)), pictures, errors, title_of(library, scene))
        for ax, name in zip(figure.axes, found, strict=False):  # of the first row
            ax.set_title(name, fontsize=7)
        return png(figure, DPI)
