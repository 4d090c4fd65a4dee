"""The command line of the explorer: load a model, then serve the page until Ctrl-C."""

import argparse
import errno
import socket
import sys
import threading
import webbrowser
from typing import TYPE_CHECKING

from stages.core.errors import ParamsError, StageError
from stages.core.params import choose_model, read_params
from stages.core.schema import Params
from stages.tools.trained import check_trained

if TYPE_CHECKING:  # slow to load, and --help should not wait
    from stages.tools.explore.library import Library

HOST, PORT = "127.0.0.1", 7860
PORTS = 20  # how many to try from PORT on, unless the user chooses one
EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104

HELP = """\
Explore in a browser what the trained models see.

Draw a digit, drop a photo, or take a test digit, and compare it with every model's
reconstruction. Move the numbers of its code, walk from one digit to another, and find it on
the map. The real models run on this machine, and the page loads nothing from other machines.
Press Ctrl-C to stop. For more, see docs/explorer.md.
"""


def main() -> None:
    args = parse_arguments()
    params = read_params(Params)
    with listen(args.host, args.port) as listener:
        if args.host != HOST:
            print(
                f"warning: anyone who can reach this machine at {args.host} can use the explorer, without a password.",
                file=sys.stderr,
            )
        serve(args, params, listener)


def parse_arguments() -> argparse.Namespace:
    """Parse the command line. Exits with status 2 if it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m stages explore", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", metavar="NAME", help="a model of params.yaml or presets.yaml to start with, or 'PCA (16)'"
    )
    parser.add_argument("--port", type=int, help=f"the port to serve on (default: the first free one from {PORT} on)")
    parser.add_argument(
        "--host", metavar="ADDRESS", default=HOST, help="the address to serve on (%(default)s: only this machine)"
    )
    parser.add_argument("--no-browser", action="store_true", help="don't open a browser")
    args = parser.parse_args()
    if args.port is not None and not 1 <= args.port <= 65535:
        parser.error(f"--port is {args.port}, but must be from 1 to 65535")
    return args


def listen(host: str, wanted: int | None) -> socket.socket:
    """Listen on the wanted port, or on the first free one from PORT on. Raises StageError if that's impossible."""
    for port in [wanted] if wanted else range(PORT, PORT + PORTS):
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            return socket.create_server((host, port), family=family)
        except (OSError, UnicodeError) as error:  # Python rejects some names before it looks them up
            if isinstance(error, socket.gaierror | UnicodeError) or error.errno == errno.EADDRNOTAVAIL:
                raise ParamsError(f"--host is {host}, which is not an address of this machine.") from None
            if error.errno == errno.EACCES:
                raise StageError(f"port {port} needs special rights; choose another with --port.") from None
            if error.errno != errno.EADDRINUSE:
                raise
    if wanted:
        raise StageError(f"port {wanted} is in use; choose another with --port.")
    raise StageError(f"ports {PORT} to {PORT + PORTS - 1} are in use; choose another with --port.")


def serve(args: argparse.Namespace, params: Params, listener: socket.socket) -> None:
    """Load the first model and serve the page. Raises StageError if that model or every model is unusable."""
    from stages.tools.explore.library import Library

    library = Library(params)
    if args.model and args.model not in library.names:
        check_trained(choose_model(params, args.model))  # raises: the library has all the others
    print("loading TensorFlow and the models", flush=True)
    import uvicorn

    from stages.core.backend import use_all_cores
    from stages.tools.explore.server import make_app

    use_all_cores()
    chosen = args.model or best_usable(library)
    library.entry(chosen)  # raises if it's broken
    threading.Thread(target=library.atlas, args=(chosen,), daemon=True).start()  # for the Code and Map tabs
    everywhere = args.host in EVERY_ADDRESS
    host = "localhost" if everywhere else f"[{args.host}]" if ":" in args.host else args.host
    app = make_app(library, chosen, ["*"] if everywhere else ["localhost", host])
    address = f"http://{host}:{listener.getsockname()[1]}"
    print(f"ready: {address} (press Ctrl-C to stop)", flush=True)
    if not args.no_browser:
        webbrowser.open(address)
    # The largest header is a link with a long code.
    config = uvicorn.Config(app, log_level="error", lifespan="off", h11_max_incomplete_event_size=2**18)
    uvicorn.Server(config).run([listener])


def best_usable(library: "Library") -> str:
    """The model with the smallest error on the test images; warns of unusable ones. Raises StageError if all are."""
    errors = {}
    for name in library.choices:
        try:
            errors[name] = library.entry(name).result.mse
        except StageError as error:
            print(f"note: {name} cannot be explored: {error}", file=sys.stderr, flush=True)
    if not errors:
        raise StageError("no model can be explored; run `dvc repro`.")
    return min(errors, key=errors.__getitem__)
