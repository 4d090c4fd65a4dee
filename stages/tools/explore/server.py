"""The web server of the explorer: the page, pictures of digits, and answers to the page's questions."""

from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from stages.core.errors import StageError
from stages.core.files import Split
from stages.tools.explore import answers
from stages.tools.explore.library import Library, image_at
from stages.tools.explore.pixels import png_bytes
from stages.tools.explore.scenes import Scene, read_scene

PAGE = Path(__file__).parent / "page"
PHOTO = 20 * 2**20  # bytes at most
QUESTION = PHOTO * 4 // 3 + 2**16  # bytes at most: a photo in base64, and the rest


def make_app(library: Library, default: str, hosts: list[str]) -> Starlette:
    """The web application.

    default: the model of links that name none. hosts: names to answer to; a website could point its own name here.
    """
    app = Starlette(
        routes=[
            Route("/", file("index.html")),
            Route("/page.css", file("page.css")),
            Route("/page.js", file("page.js")),
            Route("/test/{number:int}", digit(library.test)),
            Route("/train/{number:int}", digit(library.train)),
            Route("/start", start),
            Route("/answer", answer, methods=["POST"]),
            Route("/picture", picture),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
        exception_handlers={StageError: refuse, Exception: apologize},
        max_body_size=QUESTION,
    )
    app.state.library, app.state.default = library, default
    return app


def file(name: str) -> Callable[[Request], Response]:
    def send(_: Request) -> Response:
        return FileResponse(PAGE / name, headers={"Cache-Control": "no-cache"})  # it may change with the next version

    return send


def digit(split: Split) -> Callable[[Request], Response]:
    def send(request: Request) -> Response:
        return Response(png_bytes(image_at(split, request.path_params["number"])), media_type="image/png")

    return send


def start(request: Request) -> Response:
    return JSONResponse(answers.start(request.app.state.library) | {"largest_photo": PHOTO})


async def answer(request: Request) -> Response:
    try:
        question = answers.Question.model_validate_json(await request.body())
    except ValidationError as error:
        first = error.errors()[0]
        raise StageError(f"the page's question is wrong: {first['loc']}: {first['msg']}.") from None
    found = await run_in_threadpool(answers.answer, request.app.state.library, requested_scene(request), question)
    return JSONResponse(found)


def picture(request: Request) -> Response:
    scene = requested_scene(request)
    name = f"test-digit-{scene.digit}.png" if scene.image is None else "my-digit.png"
    content = answers.sheet(request.app.state.library, scene)
    return Response(content, headers={"Content-Disposition": f'attachment; filename="{name}"'})


def requested_scene(request: Request) -> Scene:
    state = request.app.state
    return read_scene(request.query_params, state.library.height, state.library.width, state.default)


def refuse(_: Request, error: Exception) -> Response:
    return JSONResponse({"problem": str(error)}, 400)


def apologize(_: Request, error: Exception) -> Response:
    """Answer after a fault of this program; Uvicorn prints its traceback."""
    return JSONResponse({"problem": "something went wrong; see the terminal that runs the explorer."}, 500)
