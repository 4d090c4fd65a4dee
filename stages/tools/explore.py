"""Explore what the models see, in a browser: draw digits and move their codes."""

import argparse
import errno
import os
import socket
import sys
import tempfile
import threading
import time
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.core.errors import ParamsError, StageError, run
from stages.core.params import choose_model, read_params
from stages.core.schema import Params
from stages.tools.trained import check_trained

if TYPE_CHECKING:  # these load Gradio, and --help should not wait for it
    from gradio import Blocks

    from stages.explorer.library import Library

HOST, PORT = "127.0.0.1", 7860
OF_ALL = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (where to find what is served on every address)
PORTS = 20  # tried, beginning with PORT, if no port is asked for
UPLOAD = 20 * 2**20  # bytes of a photo at most

HELP = """\
Explore what the trained models see, in a browser.

Draw a digit, drop a photo or take a test digit, and see it beside what every model gives
back. Move the numbers of its code, walk from one digit to another, and find it on the map.
Everything is computed here by the real models; the page asks nothing of any other machine.
Ctrl-C ends it. docs/explorer.md has the rest.
"""


def main() -> None:
    args = parse_arguments()
    began = time.monotonic()
    params = read_params(Params)
    port = free_port(args.host, args.port)
    if args.host != HOST:
        print(
            f"warning: whoever reaches this machine at {args.host} can use the explorer; it asks for no password.",
            file=sys.stderr,
        )
    with tempfile.TemporaryDirectory(prefix="explorer-") as folder:
        serve(args, params, port, Path(folder), began)


def parse_arguments() -> argparse.Namespace:
    """The command line; ends the process with status 2 and a sentence if it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m stages explore", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", metavar="NAME", help="the model to begin with: a key of params.yaml, or 'PCA (16)'")
    parser.add_argument("--port", type=int, help=f"the port to serve on ({PORT}, or the next one that is free)")
    parser.add_argument(
        "--host", metavar="ADDRESS", default=HOST, help="the address to serve on (%(default)s: only this machine)"
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    args = parser.parse_args()
    if args.port is not None and not 1 <= args.port <= 65535:
        parser.error(f"--port is {args.port}, but has to be from 1 to 65535")
    return args


def free_port(host: str, wanted: int | None) -> int:
    """The wanted port, or the first free one from PORT on.

    Raises ParamsError if the host is no address of this machine, StageError if the port can't be had.
    """
    for port in [wanted] if wanted else range(PORT, PORT + PORTS):
        try:
            # create_server tells no reason if a name is unknown
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            with socket.create_server((host, port), family=family):
                return port
        except (OSError, UnicodeError) as error:  # Python refuses some names before it asks for them
            if isinstance(error, socket.gaierror | UnicodeError) or error.errno == errno.EADDRNOTAVAIL:
                raise ParamsError(f"--host is {host}, which is no address of this machine.") from None
            if error.errno == errno.EACCES:
                raise StageError(f"port {port} is not for ordinary users; choose another with --port.") from None
            if error.errno != errno.EADDRINUSE:
                raise
    if wanted:
        raise StageError(f"port {wanted} is in use; choose another with --port.")
    raise StageError(f"the ports {PORT} to {PORT + PORTS - 1} are in use; choose another with --port.")


def in_address(host: str) -> str:
    """A host as an address has it: with brackets if it is of IPv6."""
    return f"[{host}]" if ":" in host else host


def serve(args: argparse.Namespace, params: Params, port: int, folder: Path, began: float) -> None:
    """Load what the first page needs, and serve until Ctrl-C. folder: temporary.

    Raises StageError if no model can be used, or the one that was asked for is a preset that is not trained.
    """
    os.environ["GRADIO_TEMP_DIR"] = str(folder)  # read while Gradio is imported
    for key in ("NO_PROXY", "no_proxy"):  # Gradio asks itself whether it is there
        os.environ[key] = ",".join(filter(None, [os.environ.get(key), HOST, "localhost"]))
    from stages.explorer.library import Library

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:5.1f} s  {what}", flush=True)

    library = Library(params, folder, say)
    if args.model and args.model not in library.names:
        check_trained(choose_model(params, args.model))  # raises, since all others are in the library
    library.start_pca()
    say("loading TensorFlow")
    from stages.core.backend import use_all_cores

    use_all_cores()
    chosen = args.model or best_usable(library)
    say("loading the page")
    page = start(library, chosen, in_address(args.host), port, folder, params.figures.dpi)
    address = f"http://{in_address(OF_ALL.get(args.host, args.host))}:{port}"
    try:
        say(f"ready: {address} (Ctrl-C ends it)")
        if not args.no_browser:
            webbrowser.open(address)
        threading.Thread(target=prepare, args=(library, chosen), daemon=True).start()
        threading.Event().wait()
    finally:
        page.close(verbose=False)


def prepare(library: "Library", chosen: str) -> None:
    """Have at hand what a visitor asks for next: where the sliders begin and end, and the map."""
    with suppress(StageError):  # whoever asks is told
        library.atlas(chosen)


def best_usable(library: "Library") -> str:
    """The model with the smallest error on the test images; says on standard error which can't be used.

    Raises StageError if none can.
    """
    for name in library.by_error():
        try:
            library.model(name)
            return name
        except StageError as error:
            print(f"note: {name} cannot be explored: {error}", file=sys.stderr, flush=True)
    raise StageError("no model can be explored; run `dvc repro`.")


def start(library: "Library", chosen: str, host: str, port: int, folder: Path, dpi: int) -> "Blocks":
    """Serve the page from another thread. Raises StageError if the port was taken meanwhile."""
    from stages.explorer import answers
    from stages.explorer.page.layout import appearance, make_page

    def show(request: Any) -> answers.Answer:
        return answers.answer(library, request, chosen, folder)

    def peek(digit: Any) -> answers.Answer:
        return answers.peek(library, digit)

    def sheet(request: Any) -> answers.Answer:
        return answers.sheet(library, request, chosen, dpi)

    def restore(query: dict[str, str]) -> tuple[str, int | None, str]:
        return answers.restore(library, query, chosen)

    page = make_page(library.names, chosen, len(library.test.labels), UPLOAD, show, peek, sheet, restore)
    try:
        page.launch(
            server_name=host,
            server_port=port,
            share=False,
            inbrowser=False,
            prevent_thread_lock=True,
            quiet=True,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            max_file_size=UPLOAD,
            **appearance(),
        )
    except OSError:
        raise StageError(f"port {port} is in use; choose another with --port.") from None
    return page


if __name__ == "__main__":
    run(main)
