"""Find test digits unlike the training digits, and measure how well each model does so.

    python -m stages.anomalies

Reads data/evaluation/<name>.npz of every model in params.yaml, and the images in data/prepared. Writes
metrics/anomalies.json and .md, and plots/anomalies.png. Loads no TensorFlow.
"""

import matplotlib.pyplot as plt

from stages.applications.anomalies import (
    FIGURE,
    METRICS,
    NEAREST_IMAGES,
    REPORT,
    compare_aurocs,
    draw_anomalies,
    main_area,
    metrics_json,
    missing_classes,
    nearest_scores,
    report,
    scores,
)
from stages.core.command import stage_parser
from stages.core.errors import run
from stages.core.evaluation import load_evaluations, results_by_name
from stages.core.files import read_images, write_all
from stages.core.params import read_params
from stages.core.schema import Params
from stages.core.style import STYLE, png


def main() -> None:
    stage_parser("anomalies", __doc__).parse_args()
    params = read_params(Params)
    evaluations = load_evaluations(list(params.models))
    results = results_by_name(evaluations)
    digits = next(iter(evaluations.values())).digits
    images = read_images("test")
    pixel_mass = images.sum(axis=(1, 2)) / 255
    scored = {name: scores(result, pixel_mass) for name, result in results.items()}
    missing = missing_classes(digits)
    rival = {NEAREST_IMAGES: nearest_scores(read_images("train"), images, pixel_mass)} if missing else {}
    areas = compare_aurocs(scored | rival, digits, params.compare.resamples, params.compare.seed)
    with plt.rc_context(STYLE):
        picture = png(draw_anomalies(results, scored, digits, images), params.figures.dpi)
    write_all({METRICS: metrics_json(areas), FIGURE: picture, REPORT: report(areas, missing).encode()})
    for name, of_scores in areas.items():
        print(f"{name}: AUROC {main_area(of_scores).auroc:.3f} for the classes {', '.join(map(str, missing))}")
    if not areas:
        print("training lacks no class, so there is none to find")


if __name__ == "__main__":
    run(main)
