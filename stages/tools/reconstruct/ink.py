"""Separate the ink of one digit from its paper, and from frames and ruled lines."""

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_closing, binary_dilation, binary_opening
from skimage.filters import threshold_otsu
from skimage.measure import label, regionprops
from skimage.transform import hough_line, hough_line_peaks

from stages.core.arrays import Float32, Floats
from stages.tools.reconstruct.files import shrink

Ink = Literal["dark", "light", "coloured"]
Mask = NDArray[np.bool_]
Box = tuple[slice, slice]  # rows and columns

COARSE = 64  # pixels of the longer side on which the paper is fitted
DEGREE = 4
EVEN = 0.01  # share of the picture's contrast within which half of an even border lies
FAINTEST = 0.08  # of the range from black to white; anything fainter is the texture of the paper
RESTLESS = 0.8  # of the ink's level; paper that varies more than this hides the ink
SOLID = 0.25  # of the ink's level; fainter pixels do not count when the digit is located
LEAST = 0.01  # share of all ink that the digit has at least
RECTANGLE = 0.9  # share of its bounding box that a rectangle fills, tilted by 3 degrees
THIN = 64  # thickest ruled lines along the picture's longer side
VISIBLE = 0.35  # of a ruled line's length; strokes hide the rest
TILT = np.deg2rad(np.arange(-6, 6.01, 0.25))  # of ruled lines


class Found(NamedTuple):
    """The ink in a picture."""

    strength: Float32  # [rows, columns] from 0 paper to 1 ink
    ink: Ink
    contrast: float  # between paper and ink, of the range from black to white


def find_ink(grey: Floats, ink: Ink | None = None, sheet: bool = True) -> Found | None:
    """Separate ink from paper, or return None if no ink stands out.

    grey: [rows, columns] from 0 to 1. ink: "dark" or "light"; detected if None. sheet: whether
    the paper may be a rectangle within the picture, as a framed or a scanned sheet is.
    """
    deviation, seen = deviate(grey.astype(np.float32), ink)
    found = measure(deviation, seen)
    if found is None:
        return None
    if sheet and (box := sheet_box(found)):
        inner = find_ink(grey[box], ink, sheet=False)
        if inner and not touches_edge(inner.strength):
            strength = np.zeros_like(found.strength)
            strength[box] = inner.strength
            return inner._replace(strength=strength)
    foreign = foreign_ink(found.strength > SOLID)
    if not foreign.any():
        return found
    return measure(np.where(foreign, 0, deviation), seen) or found


def deviate(grey: Float32, ink: Ink | None) -> tuple[Float32, Ink]:
    """How much each pixel deviates from the paper towards the ink, and what the ink is."""
    coarse = np.asarray(shrink(Image.fromarray(grey), COARSE))
    paper = paper_brightness(coarse)
    found: Ink = "light" if np.power(coarse - paper, 3).sum() > 0 else "dark"
    if ink not in (None, found):  # what looks like paper is ink, and the rest is paper
        paper = np.full_like(paper, np.percentile(coarse, 95 if ink == "dark" else 5))
    ink = ink or found
    rows, columns = grey.shape
    paper = np.asarray(Image.fromarray(paper).resize((columns, rows), Image.Resampling.BICUBIC))
    light = (paper / max(float(np.median(paper)), 1e-3)).clip(0.25)  # it shines on the ink, too
    return (grey - paper if ink == "light" else paper - grey) / light, ink


def paper_brightness(grey: Floats) -> Float32:
    """The brightness of the paper behind the ink: float32, of the shape of `grey`, float [rows, columns] in [0, 1].

    One value if the border is even. Otherwise the polynomial of DEGREE in x and y with the
    least sum of absolute deviations, found by iteratively reweighted least squares.
    """
    border = np.ones(grey.shape, bool)
    border[1:-1, 1:-1] = False
    middle = np.median(grey[border])
    if np.mean(np.abs(grey[border] - middle) <= EVEN * np.ptp(grey)) >= 0.5:
        return np.full(grey.shape, middle, np.float32)
    y, x = (axis.ravel() for axis in np.meshgrid(*(np.linspace(-1, 1, n) for n in grey.shape), indexing="ij"))
    terms = np.stack([x**i * y**j for i in range(DEGREE + 1) for j in range(DEGREE + 1 - i)], axis=1)
    target, weights = grey.ravel().astype(np.float64), np.ones(grey.size)
    for _ in range(12):
        weighted = terms.T * weights
        fitted = terms @ np.linalg.lstsq(weighted @ terms, weighted @ target, rcond=None)[0]
        weights = 1 / np.maximum(np.abs(target - fitted), 1e-3)
    return fitted.reshape(grey.shape).astype(np.float32)


def measure(deviation: Float32, ink: Ink) -> Found | None:
    """Scale deviations from the paper, so that ink is 1; None if nothing stands out."""
    strength = deviation.clip(0)
    beyond = strength[strength > threshold_otsu(strength)]
    level = np.percentile(beyond, 75) if beyond.size else 0
    if level < FAINTEST:
        return None
    # Paper varies to both sides alike, and on the side without ink it is seen alone.
    unrest = np.percentile((-deviation).clip(0), 99.5) / level
    if unrest > RESTLESS:
        return None
    scaled = ((strength / level - unrest) / (1 - unrest)).clip(0, 1)
    return Found(scaled.astype(np.float32), ink, float(level * (1 - unrest)))


# --- what is not the digit ---------------------------------------------------------------


def sheet_box(found: Found) -> Box | None:
    """The inside of the paper, if what looks like ink is a sheet: a filled rectangle of half the picture's size."""
    box = ink_box(found.strength)
    sheet = found.strength[box] > SOLID
    inset, margin = 1 + max(sheet.shape) // 20, 1 + max(sheet.shape) // 100
    if min(np.divide(sheet.shape, found.strength.shape)) < 0.5 or min(sheet.shape) <= 2 * inset or sheet.mean() < 0.5:
        return None
    thicker = max(found.strength.shape) // THIN + 2  # than ruled lines
    filled = binary_closing(sheet, np.ones((thicker, thicker)))[inset:-inset, inset:-inset]
    if np.concatenate([filled[0], filled[-1], filled[:, 0], filled[:, -1]]).mean() < RECTANGLE:
        return None
    rows, columns = (slice(s.start + margin, s.stop - margin) for s in box)
    return rows, columns


def touches_edge(ink: Floats) -> bool:
    """Whether ink, float [rows, columns] from 0 paper to 1, reaches an edge of the picture."""
    return any(s.start == 0 or s.stop == length for s, length in zip(ink_box(ink), ink.shape, strict=True))


def foreign_ink(solid: Mask) -> Mask:
    """The ink of frames, of ruled lines, and of what enters from outside the picture; none if no digit would remain."""
    lines = ruled_lines(solid)
    lines |= ruled_lines((solid & ~lines).T).T
    rest = solid & ~lines
    parts = label(rest, connectivity=2)
    area = np.bincount(parts.ravel())
    borders = [np.bincount(edge, minlength=len(area)) / len(edge) for edge in (*parts[[0, -1]], *parts.T[[0, -1]])]
    touched, longest = np.count_nonzero(borders, axis=0), np.max(borders, axis=0)
    inside = area[1:][touched[1:] < 2].sum()
    # A digit may touch several edges, but not along half an edge, and it is larger than its detached parts.
    foreign = (touched >= 2) & ((longest >= 0.5) | (area < inside)) | (touched == 1) & (area < 0.1 * inside)
    for region in regionprops(parts):
        foreign[region.label] |= is_outline(region)
    foreign[0] = False
    digit = rest & ~foreign[parts]
    if digit.sum() < LEAST * solid.sum():
        return np.zeros_like(solid)
    return np.asarray(lines | near(foreign[parts]) & ~digit)


def is_outline(region: Any) -> bool:
    """Whether a region of scikit-image is the outline of a rectangle."""
    return bool(region.area <= region.area_bbox / 2 and region.area_filled >= RECTANGLE * region.area_bbox)


def near(mask: Mask) -> Mask:
    """The mask with its blurred edge."""
    return np.asarray(binary_dilation(mask, iterations=1 + max(mask.shape) // 100))


def ruled_lines(solid: Mask) -> Mask:
    """The pixels of thin straight lines from the left to the right edge, except where strokes cross them."""
    columns, thickest = solid.shape[1], max(solid.shape) // THIN
    strokes = binary_opening(solid, np.ones((thickest + 1, 1)))
    y, x = np.nonzero(solid & ~strokes)
    counts, angles, distances = hough_line(solid & ~strokes, np.pi / 2 + TILT)
    lines = np.zeros_like(solid)
    for peak in zip(*hough_line_peaks(counts, angles, distances, threshold=VISIBLE * columns), strict=True):
        count, angle, distance = peak
        on_line = np.abs(x * np.cos(angle) + y * np.sin(angle) - distance) <= thickest
        if x[on_line].min() <= 0.02 * columns and x[on_line].max() >= 0.98 * columns - 1:
            across, down = np.meshgrid(*(np.arange(n) for n in solid.T.shape), sparse=True)
            offset = across * np.cos(angle) + down * np.sin(angle) - distance
            lines |= np.abs(offset) <= on_line.sum() / count / 2 + 1.5
    return np.asarray(lines & ~strokes)


def ink_box(ink: Floats) -> Box:
    """Rows and columns of the smallest box around the ink, float [rows, columns] from 0 paper to 1.

    Ink below SOLID does not count, nor does the outermost thousandth of the ink on each side.
    """
    solid = np.where(ink > SOLID, ink, 0)
    total = solid.sum()
    rows, columns = (
        slice(int(np.searchsorted(share, 0.001, "right")), int(np.searchsorted(share, 0.999)) + 1)
        for share in (np.cumsum(solid.sum(axis=axis)) / total for axis in (1, 0))
    )
    return rows, columns
