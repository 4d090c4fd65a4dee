"""The explorer in a real browser: what a visitor does, and the pixels and numbers that Keras computes for it."""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from stages.core.idx import read_idx
from stages.tools.explore.pixels import png_bytes
from stages.tools.explore.scenes import read_scene
from stages.tools.reconstruct.digits import centre
from tests.conftest import (
    MODELS,
    NAMES,
    RAW,
    ROOT,
    call,
    change_params,
    environment,
    stages_in_turn,
    succeed,
    wait_until,
    write_raw,
)  # fmt: skip

pytestmark = pytest.mark.xdist_group("browser")  # one server and one browser for all

CHROMIUM = shutil.which("chromium")
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
)  # fmt: skip


PROXIES = {"ALL_PROXY": "socks5://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
ANSWERS = "performance.getEntriesByType('resource').filter(e => e.name.includes('/answer')).map(e => e.duration)"


class Server(NamedTuple):
    process: "subprocess.Popen[bytes]"
    address: str
    folder: Path  # for its temporary files
    log: Path


@contextmanager
def serve(project: Path, folder: Path, *arguments: str, end: int = signal.SIGINT) -> Iterator[Server]:
    """The explorer in a project, with temporary files below `folder`; it deletes them when the signal `end` ends it.

    It ignores the proxies in its environment, which don't exist.
    """
    (folder / "tmp").mkdir()
    log = folder / "log"
    command = [sys.executable, "-m", "stages", "explore", "--no-browser", *arguments]
    proxies = PROXIES | {name.lower(): proxy for name, proxy in PROXIES.items()}
    variables = environment() | proxies | {"TMPDIR": str(folder / "tmp")}
    with open(log, "wb") as out:
        process = subprocess.Popen(command, cwd=project, env=variables, stdout=out, stderr=out, start_new_session=True)
    try:
        wait_until(lambda: "(press Ctrl-C to stop)" in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        address = log.read_text().partition("ready: ")[2].split()[0]
        yield Server(process, address, folder / "tmp", log)
    finally:
        process.send_signal(end)
        status = process.wait(30)
    assert (status, "Traceback" in log.read_text()) == (128 + end, False)
    assert not list((folder / "tmp").iterdir())


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The system's browser."""
    if not CHROMIUM:
        if os.environ.get("CI") == "true":
            pytest.fail("chromium is not installed, so the explorer's page was not tested.")
        pytest.skip("chromium is not installed (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(chromium: Any, run_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The explorer on the models of the small run, which it must not change."""
    with serve(run_template, tmp_path_factory.mktemp("explorer"), "--model", "deep") as server:
        yield server
    assert server.log.read_text().splitlines()[-1] == "interrupted."
    assert succeed(run_template, "git", "status", "--porcelain") == ""


def read_uri(uri: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(uri.partition(",")[2])))


class Visit:
    """A page, and all that its browser asked for."""

    def __init__(self, browser: Any, server: Server, link: str = "") -> None:
        self.server, self.context = server, browser.new_context(viewport={"width": 1280, "height": 900})
        self.page = self.context.new_page()
        self.asked: list[str] = []
        self.faults: list[str] = []
        self.context.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.goto(server.address + link)
        self.page.wait_for_selector("[data-ready]")
        self.settle()

    def settle(self) -> None:
        """Wait until the page shows what the visitor did last."""
        wait_until(lambda: self.page.evaluate("explorer.idle()"))

    def open(self, tab: str) -> None:
        self.page.get_by_role("tab", name=tab).click()
        self.settle()

    def press(self, button: str) -> None:
        self.page.get_by_role("button", name=button).click()
        self.settle()

    def look_with(self, model: str) -> None:
        """Choose a model from those side by side."""
        self.page.locator("#rows").get_by_role("button", name=model).click()
        self.settle()

    def take(self, digit: int) -> None:
        """Choose a test digit."""
        self.page.get_by_label("Test digit").fill(str(digit))
        self.settle()

    def slider(self, number: int) -> Any:
        return self.page.get_by_role("slider", name=f"Latent {number}", exact=True)

    def draw(self, *places: tuple[float, float]) -> None:
        """One stroke through places on the pad, from 0 to 1; the pen stays down."""
        box = self.page.get_by_label("Drawing pad").bounding_box()
        (x, y), *rest = ((box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in places)
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        for point in rest:
            self.page.mouse.move(*point, steps=4)

    def source(self, name: str) -> str:
        return str(self.page.get_by_role("img", name=name, exact=True).get_attribute("src"))

    def picture(self, name: str) -> np.ndarray:
        return np.asarray(read_uri(self.source(name)))

    def scene(self) -> Any:
        fields = dict(urllib.parse.parse_qsl(urllib.parse.urlparse(self.page.url).query))
        return read_scene(fields, 28, 28, "none")

    def problem(self) -> str:
        return str(self.page.get_by_role("alert").inner_text())

    def number(self) -> float:
        return float(self.page.locator("#verdict b").inner_text())


@contextmanager
def visiting(browser: Any, server: Server, link: str = "") -> Iterator[Visit]:
    """A visit in which nothing fails and the browser contacts only the server."""
    visit = Visit(browser, server, link)
    try:
        yield visit
    finally:
        visit.context.close()
    assert not visit.faults
    for address in visit.asked:
        assert address.startswith((server.address, "data:", "blob:")), f"the page asked for {address}"


@pytest.fixture
def visit(chromium: Any, server: Server) -> Iterator[Visit]:
    with visiting(chromium, server) as visit:
        yield visit


def ink_of(visit: Visit) -> np.ndarray:
    """What is on the pad, from 0 black to 1 white."""
    uri = visit.page.get_by_label("Drawing pad").evaluate("canvas => canvas.toDataURL('image/png')")
    return np.asarray(read_uri(uri).convert("L")) / np.float32(255)


def seen_as(drawing: np.ndarray) -> np.ndarray:
    """The drawing as the models see it."""
    return centre(drawing, 28, 28)


@pytest.fixture(scope="module")
def deep(run_template: Path) -> Any:
    import keras

    return keras.saving.load_model(run_template / "data/models/deep.keras", compile=False)


@pytest.fixture(scope="module")
def test_images(run_template: Path) -> np.ndarray:
    return np.asarray(np.load(run_template / "data/prepared/test_images.npy"))


@pytest.fixture(scope="module")
def train_codes(deep: Any, run_template: Path) -> tuple[np.ndarray, np.ndarray]:
    """The codes of the training images, and their labels."""
    images, labels = (np.load(run_template / f"data/prepared/train_{kind}.npy") for kind in ("images", "labels"))
    return np.asarray(deep.get_layer("encoder")(images.reshape(-1, 784) / np.float32(255))), labels


def expect_what_keras_computes(visit: Visit, deep: Any, image: np.ndarray) -> None:
    """The three pictures and the number on the page are those of this image."""
    pixels = image.reshape(1, -1).astype(np.float32) / 255
    decoded = np.asarray(deep(pixels))
    assert (visit.picture("Input") == image).all()
    assert np.abs(visit.picture("Reconstruction").ravel() - decoded[0] * 255).max() < 1
    assert visit.number() == pytest.approx(np.square(decoded - pixels).sum(), abs=0.006)
    difference = (decoded - pixels).reshape(28, 28)
    red, blue = visit.picture("Error")[..., 0].astype(int), visit.picture("Error")[..., 2].astype(int)
    assert (red[difference < -0.3] > blue[difference < -0.3]).all()
    assert (blue[difference > 0.3] > red[difference > 0.3]).all()


def test_a_test_digit_by_its_number(visit: Visit, deep: Any, test_images: np.ndarray) -> None:
    expect_what_keras_computes(visit, deep, test_images[0])
    visit.take(7)
    expect_what_keras_computes(visit, deep, test_images[7])
    assert visit.scene().digit == 7
    assert visit.page.locator("#rows li").count() == 3
    facts = visit.page.locator("#facts li").all_inner_texts()
    assert [fact.split(" loses ")[0] for fact in facts] == [*MODELS, "PCA (16)"]
    number = visit.page.get_by_label("Test digit")
    number.fill("99999")
    assert all(part in visit.problem() for part in ("no test digit 99999", "0 to 199"))
    visit.settle()
    assert number.input_value() == "7"
    visit.take(0)
    number.press_sequentially("12")  # after the 0; a single keystroke requests no digit
    visit.settle()
    expect_what_keras_computes(visit, deep, test_images[12])


def test_a_drawing(visit: Visit, deep: Any) -> None:
    places = [(0.25, 0.25), (0.75, 0.25), (0.45, 0.8)]
    before = visit.source("Input")
    visit.draw(*places)
    visit.settle()
    assert visit.source("Input") != before  # it follows the pen
    visit.page.mouse.up()
    visit.settle()
    drawn = ink_of(visit)
    for x, y in places:  # the ink is where the pen was
        assert drawn[round(y * 280), round(x * 280)] > 0.9
    expect_what_keras_computes(visit, deep, seen_as(drawn))
    assert visit.page.get_by_label("Test digit").input_value() == ""


def test_a_slider_by_keyboard_and_back(visit: Visit, deep: Any, test_images: np.ndarray) -> None:
    visit.open("Code")
    sliders = visit.page.locator("#sliders input")
    assert [slider.get_attribute("aria-label") for slider in sliders.all()] == [f"Latent {n}" for n in range(1, 17)]
    encoded = np.asarray(deep.get_layer("encoder")(test_images[:1].reshape(1, -1) / np.float32(255)))[0]
    slider = visit.slider(3)
    assert float(slider.input_value()) == pytest.approx(encoded[2], abs=1e-3)
    slider.focus()
    for _ in range(15):
        visit.page.keyboard.press("ArrowRight")
    visit.settle()
    code = visit.scene().code
    assert code[2] > encoded[2]
    np.testing.assert_allclose(np.delete(code, 2), np.delete(encoded, 2), atol=1e-4)
    decoded = np.asarray(deep.get_layer("decoder")(code[None]))[0]
    assert np.abs(visit.picture("Reconstruction").ravel() - decoded * 255).max() < 1
    visit.press("Back to the encoded digit")
    assert visit.scene().code is None
    expect_what_keras_computes(visit, deep, test_images[0])


def test_towards_a_class_and_a_walk(
    visit: Visit, deep: Any, train_codes: tuple[np.ndarray, np.ndarray], test_images: np.ndarray
) -> None:
    """A class's mean is marked on the sliders, those farthest from it are named, and a button goes to it."""
    visit.open("Code")
    assert visit.page.get_by_role("radio", checked=True).input_value() == "7"  # what the first test digit is
    codes, labels = train_codes
    mean, spread = codes[labels == 9].mean(axis=0), np.subtract(*np.percentile(codes, (75, 25), axis=0))
    visit.page.get_by_role("radio", name="9", exact=True).click()
    farthest = np.argsort(-np.abs(mean - visit.page.evaluate("explorer.code()")) / spread)[:3] + 1
    said = visit.page.locator("#farthest").inner_text()
    assert said.endswith(f"class 9. Farthest off: Latent {farthest[0]}, {farthest[1]}, {farthest[2]}.")
    slider = visit.slider(farthest[0])
    low, high = (float(slider.get_attribute(end) or "") for end in ("min", "max"))
    mark = slider.locator("xpath=..").locator(".class").evaluate("mark => mark.style.left")
    assert float(mark.removesuffix("%")) == pytest.approx(100 * (mean[farthest[0] - 1] - low) / (high - low), abs=0.01)
    visit.press("Class mean")
    np.testing.assert_allclose(visit.scene().code, mean, atol=1e-3)
    visit.press("Freeze this digit")
    visit.take(4)
    visit.press("50 % of the way")
    goal = np.asarray(deep.get_layer("encoder")(test_images[4:5].reshape(1, -1) / np.float32(255)))[0]
    np.testing.assert_allclose(visit.scene().code, (mean + goal) / 2, atol=1e-3)


def test_a_moved_code_waits_while_another_model_is_looked_at(visit: Visit) -> None:
    visit.open("Code")
    visit.slider(1).press("End")
    visit.settle()
    moved = visit.scene().code
    assert "between the input and the moved code" in visit.page.locator("#verdict").inner_text()
    assert visit.page.locator("#side h2").inner_text() == "Side by side, of the encoded digit"
    visit.look_with("shallow")
    assert visit.scene().code is None
    assert "What you moved in deep returns with it." in visit.page.locator("#moved").inner_text()
    visit.look_with("deep")
    assert (visit.scene().code == moved).all()
    visit.take(3)  # another digit, another code
    assert visit.scene().code is None


def test_an_empty_pad_shows_the_test_digit_again(visit: Visit, deep: Any, test_images: np.ndarray) -> None:
    visit.take(5)
    for button in ("Clear", "Undo"):
        visit.page.get_by_label("Drawing pad").click()
        visit.settle()
        assert visit.scene().image is not None
        visit.press(button)
        expect_what_keras_computes(visit, deep, test_images[5])
        assert visit.page.get_by_text("Draw a digit here").is_visible()
        assert visit.page.get_by_label("Test digit").input_value() == "5"


def test_the_last_stroke_counts_whatever_comes_next(visit: Visit, deep: Any) -> None:
    """Another tab or model before the answer is there, and back from a test digit, the worst of all."""
    visit.draw((0.3, 0.3), (0.7, 0.3), (0.4, 0.8))
    visit.page.mouse.up()
    visit.page.get_by_role("tab", name="Code").click()
    visit.page.locator("#rows").get_by_role("button", name="shallow").click()
    visit.look_with("deep")
    drawn = seen_as(ink_of(visit))
    expect_what_keras_computes(visit, deep, drawn)
    visit.press("Worst")
    assert visit.scene().image is None
    said = visit.page.locator("#verdict span").inner_text()
    assert any(f"above {share} % of test digits" in said for share in ("99.50", "100.00"))  # if its error rounds up
    visit.press("Back to my digit")
    expect_what_keras_computes(visit, deep, drawn)
    visit.open("Draw")
    np.testing.assert_array_equal(seen_as(ink_of(visit)), drawn)
    assert not visit.page.get_by_role("button", name="Back to my digit").is_visible()


def test_a_copied_link_and_the_other_theme(visit: Visit) -> None:
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit.open("Code")
    visit.slider(1).press("End")
    visit.page.get_by_role("button", name="Copy link").click()  # before the answer is there
    visit.page.get_by_role("button", name="Link copied").wait_for()
    assert "code=" in visit.page.url
    assert visit.page.evaluate("navigator.clipboard.readText()") == visit.page.url
    paper = "getComputedStyle(document.body).backgroundColor"
    before = visit.page.evaluate(paper)
    visit.page.get_by_role("button", name="Dark or light").click()
    dark = visit.page.evaluate(paper)
    assert sum(map(int, dark[4:-1].split(","))) < 100 < 600 < sum(map(int, before[4:-1].split(",")))
    visit.open("Map")
    visit.page.reload()
    visit.page.wait_for_selector("[data-ready]")
    visit.settle()
    assert visit.page.evaluate(paper) == dark
    assert visit.page.get_by_role("tab", name="Map", selected=True).is_visible()
    visit.page.get_by_role("button", name="Dark or light").click()
    assert visit.page.evaluate(paper) == before


def test_a_point_on_the_map(visit: Visit, deep: Any, test_images: np.ndarray) -> None:
    visit.open("Map")
    x, y = visit.page.evaluate("explorer.places()[42]")
    canvas = visit.page.locator("#map")
    canvas.scroll_into_view_if_needed()
    canvas.hover(position={"x": x, "y": y})
    visit.page.wait_for_selector("#tip:not([hidden])")
    canvas.click(position={"x": x, "y": y})
    visit.settle()
    digit = visit.scene().digit
    place = visit.page.evaluate(f"explorer.places()[{digit}]")  # of 42, or of one on top of it
    assert place == pytest.approx([x, y], abs=1.5)
    expect_what_keras_computes(visit, deep, test_images[digit])
    assert visit.page.get_by_label("Test digit").input_value() == str(digit)
    assert visit.page.evaluate("explorer.star()") == pytest.approx([x, y], abs=1.5)
    assert visit.page.locator("#near img").count() == 6


def test_a_link_restores_model_digit_and_code(visit: Visit, chromium: Any) -> None:
    visit.take(11)
    visit.look_with("shallow")
    visit.open("Code")
    visit.slider(1).press("End")
    visit.settle()
    link = "/?" + urllib.parse.urlparse(visit.page.url).query
    with visiting(chromium, visit.server, link) as again:
        for name in ("Input", "Reconstruction", "Error"):
            assert again.source(name) == visit.source(name)
        assert again.page.get_by_label("Model", exact=True).input_value() == "shallow"
        assert again.page.get_by_label("Test digit").input_value() == "11"
        restored = float(again.slider(1).input_value())  # the link opens the tab of the code
        assert restored == pytest.approx(float(visit.slider(1).input_value()), abs=1e-5)
        again.page.goto(visit.server.address + "/?model=nobody&digit=3")
        assert "no model 'nobody'" in again.problem()
        again.page.get_by_label("Model", exact=True).select_option("shallow")
        again.page.wait_for_selector("[data-ready]")


def test_a_saved_picture(visit: Visit) -> None:
    with visit.page.expect_download() as download:
        visit.page.get_by_role("button", name="Save picture").click()
    assert download.value.suggested_filename == "test-digit-0.png"
    with Image.open(download.value.path()) as image:
        assert image.format == "PNG"
        assert image.width > 400


def test_photos_good_and_bad(visit: Visit, test_images: np.ndarray, tmp_path: Path) -> None:
    chosen = visit.page.locator("input[type=file][aria-label=Photo]")
    large = Image.fromarray(255 - test_images[0]).resize((7100, 7100), Image.Resampling.BICUBIC)  # 50 megapixels
    large.save(tmp_path / "seven.jpg", quality=50)
    chosen.set_input_files(tmp_path / "seven.jpg")
    visit.page.get_by_text("dark ink found and inverted").wait_for(timeout=30_000)
    visit.settle()
    assert np.abs(visit.picture("Input").astype(float) - test_images[0]).mean() < 12
    Image.new("L", (10_000, 10_000)).save(tmp_path / "huge.png")
    (tmp_path / "note.png").write_text("not a picture")
    for name in ("huge.png", "note.png"):
        chosen.set_input_files(tmp_path / name)
        visit.page.get_by_role("alert").filter(has_text=name).wait_for(timeout=30_000)
    drop = visit.page.evaluate_handle(
        "([bytes]) => { const files = new DataTransfer(); files.items.add(new File([Uint8Array.from(atob(bytes),"
        " c => c.charCodeAt(0))], 'dropped.png')); return files; }",
        [base64.b64encode(png_bytes(255 - test_images[3].repeat(8, 0).repeat(8, 1))).decode()],
    )
    visit.page.locator("#frame").dispatch_event("drop", {"dataTransfer": drop})
    visit.page.get_by_text("dark ink found and inverted").wait_for(timeout=30_000)
    visit.settle()
    assert np.abs(visit.picture("Input").astype(float) - test_images[3]).mean() < 12
    chosen.evaluate(  # as the input would; Playwright itself refuses so large a file
        "input => { const files = new DataTransfer(); files.items.add(new File([new Uint8Array(200 * 2 ** 20)],"
        " 'heavy.png')); input.files = files.files; input.dispatchEvent(new Event('change', { bubbles: true })); }"
    )
    visit.page.get_by_text("heavy.png has 200 MB, but a photo may have at most 20 MB").wait_for()
    visit.take(2)
    assert (visit.picture("Input") == test_images[2]).all()  # it lives on
    assert not list(visit.server.folder.glob("explorer-*"))


def post(server: Server, query: str, body: bytes, **headers: str) -> Any:
    """The server's answer to a question, as JSON."""
    request = urllib.request.Request(f"{server.address}/answer?{query}", body, headers)
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.loads(reply.read())


def refusal(server: Server, query: str, body: bytes, **headers: str) -> tuple[int, str]:
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(server, query, body, **headers)
    return caught.value.code, caught.value.read().decode()


def test_bad_questions_are_refused_in_a_sentence(server: Server) -> None:
    for query, body, parts in (
        ("", b"{", ["question", "JSON"]),
        ("", b'{"do": "explode"}', ["question", "do", "'random'"]),
        ("", b'{"photo": "../a.png", "picture": ""}', ["question", "photo"]),
        ("digit=x", b"{}", ["test digit", "'x'", "whole number"]),
    ):
        status, text = refusal(server, query, body)
        assert status == 400
        assert all(part in json.loads(text)["problem"] for part in parts)


def test_a_question_larger_than_a_photo_is_cut_off(server: Server) -> None:
    with pytest.raises((urllib.error.URLError, ConnectionError)):  # status 413, or the connection ends first
        post(server, "", b'{"photo": "a.png", "picture": "' + b"A" * (30 * 2**20) + b'"}')


def test_a_website_cannot_reach_it_under_its_own_name(server: Server) -> None:
    status, _ = refusal(server, "", b"{}", Host="example.org")
    assert status == 400


def test_ten_clients_at_once(server: Server, deep: Any, test_images: np.ndarray) -> None:
    def client(digit: int) -> np.ndarray:
        uri = post(server, f"model=deep&digit={digit}", b"{}")["reconstruction"]
        return np.asarray(read_uri(uri))

    with ThreadPoolExecutor(10) as clients:
        found = list(clients.map(client, [*range(10)] * 3))
    decoded = np.asarray(deep(test_images[:10].reshape(10, -1) / np.float32(255)))
    for index, picture in enumerate(found):
        assert np.abs(picture.ravel() - decoded[index % 10] * 255).max() < 1


def test_only_this_machine_is_answered(server: Server) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing, but finds out this machine's own address
        except OSError:
            pytest.skip("this machine has no address but 127.0.0.1")
        reachable = probe.getsockname()[0]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((reachable, int(server.address.rpartition(":")[2])), timeout=5)


def test_the_server_itself_calls_nobody(visit: Visit) -> None:
    descriptors = Path(f"/proc/{visit.server.process.pid}/fd")
    if not descriptors.exists():
        pytest.skip("needs /proc")
    sockets = {str(fd.readlink()).removeprefix("socket:[").removesuffix("]") for fd in descriptors.iterdir()}
    rows = [line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()]
    remote = {row[2].partition(":")[0] for row in rows if len(row) > 9 and row[9] in sockets}
    assert remote <= {"00000000", "0100007F", "0" * 32, "0000000000000000FFFF00000100007F"}


def test_a_port_in_use(server: Server, run_template: Path) -> None:
    port = server.address.rpartition(":")[2]
    result = call(run_template, sys.executable, "-m", "stages", "explore", "--no-browser", "--port", port)
    assert (result.returncode, result.stderr) == (1, f"error: port {port} is in use; choose another with --port.\n")


def test_a_phone_shows_all_without_scrolling_sideways(visit: Visit) -> None:
    visit.page.set_viewport_size({"width": 390, "height": 844})
    for tab in ("Draw", "Code", "Map"):
        visit.open(tab)
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_pictures_stay_in_sight(visit: Visit) -> None:
    visit.open("Code")
    visit.page.mouse.wheel(0, 300)
    wait_until(lambda: visit.page.evaluate("scrollY > 100"))
    for name in ("Input", "Reconstruction", "Error"):
        assert visit.page.get_by_role("img", name=name, exact=True).bounding_box()["y"] >= 0


def test_a_model_that_is_missing_and_another_address(chromium: Any, run_project: Path, tmp_path: Path) -> None:
    """The page says what is missing; it is served on the address of --host, with a warning."""
    metrics = {name: json.loads((run_project / f"metrics/{name}.json").read_text()) for name in MODELS}
    best, other = sorted(MODELS, key=lambda name: float(metrics[name]["mse"]))
    missing = f"data/models/{best}.keras is missing; run `dvc repro`."
    (run_project / f"data/models/{best}.keras").unlink()
    with (
        serve(run_project, tmp_path, "--host", "127.0.0.2", end=signal.SIGTERM) as server,
        visiting(chromium, server) as visit,
    ):
        assert f"note: {best} cannot be explored: {missing}" in server.log.read_text()
        assert visit.page.get_by_label("Model", exact=True).input_value() == other
        visit.page.get_by_label("Model", exact=True).select_option(best)
        assert missing in visit.problem()
        assert "127.0.0.2 can use the explorer, without a password" in server.log.read_text()
        assert server.address.startswith("http://127.0.0.2:")


def test_a_model_of_another_kind(chromium: Any, project: Path, tmp_path: Path) -> None:
    """Convolutional, overcomplete, denoising, and of images of 22×20 pixels: the page shows what Keras computes."""
    import keras

    crop = {
        split: (read_idx(RAW / images, 3)[:600, 3:25, 4:24], read_idx(RAW / labels, 1)[:600])
        for split, (images, labels) in NAMES.items()
    }
    write_raw(project / "data/raw", crop)
    kind = {"layers": "conv", "hidden_units": [4], "normalization": "none", "latent_dim": 450, "noise": 0.3}

    def change(params: Any) -> None:
        params["models"] = {"wide": params["models"]["deep"] | kind}

    change_params(project, change)
    result = stages_in_turn(project, "prepare", "train wide", "evaluate wide")
    assert result.returncode == 0, result.stderr
    images = np.load(project / "data/prepared/test_images.npy")
    model = keras.saving.load_model(project / "data/models/wide.keras", compile=False)
    with serve(project, tmp_path) as server, visiting(chromium, server) as visit:
        visit.take(4)
        visit.open("Code")
        assert visit.page.locator("#sliders input").count() == 450
        decoded = np.asarray(model(images[4:5].reshape(1, 440).astype(np.float32) / 255)).reshape(22, 20)
        assert (visit.picture("Input") == images[4]).all()
        assert np.abs(visit.picture("Reconstruction") - decoded * 255).max() < 1
        visit.slider(450).press("End")
        visit.settle()
        moved = np.asarray(model.get_layer("decoder")(visit.scene().code[None])).reshape(22, 20)
        assert np.abs(visit.picture("Reconstruction") - moved * 255).max() < 1
        visit.open("Map")
        assert visit.page.locator("#near img").count() == 6
        visit.open("Draw")
        visit.page.get_by_label("Drawing pad").click()
        visit.settle()
        assert visit.picture("Input").shape == (22, 20)


def take_picture(path: Path) -> None:
    """The picture for the README: a drawn seven, and the numbers it became."""
    from playwright.sync_api import sync_playwright

    seven = [(0.24, 0.28), (0.3, 0.24), (0.5, 0.25), (0.74, 0.22), (0.7, 0.36), (0.6, 0.52), (0.52, 0.68), (0.47, 0.86)]
    with (
        tempfile.TemporaryDirectory() as folder,
        sync_playwright() as playwright,
        serve(ROOT, Path(folder)) as server,
        playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET)) as browser,
    ):
        visit = Visit(browser, server)
        visit.draw(*seven)
        visit.page.mouse.up()
        visit.settle()
        visit.open("Code")
        visit.page.mouse.move(0, 0)
        visit.page.screenshot(path=path)
        print(f"{path}: answers took {np.median(visit.page.evaluate(ANSWERS)):.0f} ms, the median")


if __name__ == "__main__":  # python -m tests.test_explore_page
    take_picture(ROOT / "docs/explorer.png")
