"""The page of the explorer, in Gradio: where its parts are, and what they call."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read while Gradio is imported
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
import gradio as gr

Function = Callable[[Any], dict[str, Any]]  # JSON to JSON

FOLDER = Path(__file__).parent
SYSTEM_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
MONOSPACED = ["ui-monospace", "Consolas", "monospace"]


def make_page(
    names: list[str],
    chosen: str,
    test_digits: int,
    largest_upload: int,
    show: Function,
    peek: Function,
    sheet: Function,
    restore: Callable[[dict[str, str]], tuple[str, int | None, str]],
) -> gr.Blocks:
    """The page.

    names, chosen: the models. largest_upload: in bytes. show, peek, sheet: answer the page's questions.
    restore: from a link's query to the model, the test digit and the tab to begin with.
    """

    def part(name: str, extra: str = "", **options: Any) -> gr.HTML:
        html = (FOLDER / f"{name}.html").read_text(encoding="utf-8")
        load = f'window.explorer.mount("{name}", element, {{{extra}}});'
        return gr.HTML(html_template=html, js_on_load=load, apply_default_css=False, **options)

    with gr.Blocks(title="Autoencoder explorer", analytics_enabled=False, elem_id="explorer-page") as page:
        given = f"server, upload, sync: () => trigger('synced'), largest: {largest_upload}"
        head = part("head", given, server_functions=[show, peek, sheet])
        with gr.Row(elem_id="choose"):
            model = gr.Dropdown(names, value=chosen, label="Model", elem_id="choose-model", filterable=False)
            digit = gr.Number(
                0, label="Test digit", minimum=0, maximum=test_digits - 1, precision=0, elem_id="choose-digit"
            )
            part("picks")
        with gr.Row(elem_id="bench"):
            with gr.Column(elem_id="hand"), gr.Tabs(selected="Draw") as tabs:
                for name in ("Draw", "Code", "Map"):
                    with gr.Tab(name, id=name) as tab:
                        part(name.lower())
                    tab.select(None, show_progress="hidden", js=f"() => {{ window.explorer.setTab('{name}'); }}")
            with gr.Column(elem_id="eye"):
                part("eye", elem_id="look")
                part("side", elem_id="beside")
        part("measured")

        # no progress is shown: it would push the page about while someone draws
        model.input(None, model, show_progress="hidden", js="(name) => { window.explorer.choose(name); }")
        digit.input(None, digit, show_progress="hidden", js="(number) => { window.explorer.typeDigit(number); }")
        now = "() => [window.explorer.model, window.explorer.digit]"
        head.synced(None, None, [model, digit], show_progress="hidden", js=now)

        def begin(request: gr.Request) -> tuple[str, int | None, Any]:
            name, number, tab = restore(dict(request.query_params))
            return name, number, gr.Tabs(selected=tab)

        page.load(begin, None, [model, digit, tabs], show_progress="hidden")
    return cast(gr.Blocks, page)


def appearance() -> dict[str, Any]:
    """How the page looks and behaves, as `launch` takes it. No font comes from elsewhere."""
    theme = gr.themes.Base(primary_hue="blue", neutral_hue="stone", font=SYSTEM_FONTS, font_mono=MONOSPACED)
    css = (FOLDER / "page.css").read_text(encoding="utf-8")
    script = (FOLDER / "page.js").read_text(encoding="utf-8")
    return {"theme": theme, "css": css, "head": f"<script>\n{script}</script>"}
