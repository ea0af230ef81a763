"""The console's HTTP surface: pages, their live streams, their JSON twins, and the commands.

Handlers here only translate: find the run, render it or publish the command.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Protocol

from fastapi import FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware.trustedhost import TrustedHostMiddleware

from contracts.alerts import Alert
from contracts.base import SLUG
from contracts.run import Run
from contracts.subjects import RunRef
from services.console import access, api, labelling, live, story, views
from services.console.projection import Projection
from services.console.settings import ConsoleSettings
from shared.errors import TransientError

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
LABEL_PATH = "/label"
OPEN_PATHS = ("/healthz", "/login", "/static/")


class Commands(Protocol):
    """Publishes a user's command. Raises TransientError."""

    async def __call__(self, ref: RunRef, verb: story.Verb) -> None: ...


Load = Callable[[RunRef], Awaitable[Run | None]]


def build(
    projection: Projection, settings: ConsoleSettings, *, load: Load, command: Commands
) -> FastAPI:
    """The console as an ASGI app."""
    app = FastAPI(
        title="Sluiceway console",
        version="1",
        description="Runs, their stories and alerts, as the event streams tell them.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    app.mount("/static", StaticFiles(directory=views.STATIC), name="static")
    _guard(app, settings)
    _pages(app, projection, load, labelled=settings.label_rows is not None)
    _streams(app, projection, load)
    _twins(app, projection, load)
    _commands(app, projection, load, command)
    _sessions(app, settings)
    labelling.routes(app, settings)
    return app


def _guard(app: FastAPI, settings: ConsoleSettings) -> None:
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=settings.allowed_hosts)

    @app.middleware("http")
    async def guard(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        path, carried = request.url.path, {"headers": request.headers, "cookies": request.cookies}
        labels = path == LABEL_PATH and access.rater_of(settings.label_raters, **carried)
        if not labels and not access.signed_in(settings.token, **carried):
            if path.startswith("/api/"):
                return _harden(JSONResponse({"detail": "send the console token"}, 401))
            if not path.startswith(OPEN_PATHS):
                return _harden(RedirectResponse("/login", 303))
        if request.method not in {"GET", "HEAD"} and not access.same_origin(request.headers):
            return _harden(JSONResponse({"detail": "only from the console's own pages"}, 403))
        return _harden(await call_next(request))

    @app.exception_handler(TransientError)
    async def away(request: Request, error: TransientError) -> Response:
        return JSONResponse({"detail": str(error)}, 503, headers={"Retry-After": "2"})


def _harden(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers.setdefault("Cache-Control", "no-store")
    return response


async def _find(projection: Projection, load: Load, tenant: str, name: str) -> Run:
    ref = RunRef(tenant, name)
    run = projection.run(ref) or await load(ref)
    if run is None:
        raise HTTPException(404, "no such run")
    return run


def _pages(app: FastAPI, projection: Projection, load: Load, *, labelled: bool) -> None:
    page = partial(views.page, labelled=labelled)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def runs() -> str:
        return page("Runs", views.runs_fragment(projection), live="/live/runs", here="runs")

    @app.get("/runs/{tenant}/{name}", response_class=HTMLResponse, include_in_schema=False)
    async def run(tenant: str, name: str) -> str:
        found = await _find(projection, load, tenant, name)
        return page(
            str(found.ref),
            views.run_fragment(found, projection),
            live=f"/live{views.path_of(found)}",
            here="run",
        )

    @app.get("/alerts", response_class=HTMLResponse, include_in_schema=False)
    async def alerts() -> str:
        body = views.alerts_fragment(projection)
        return page("Alerts", body, live="/live/alerts", here="alerts")

    @app.get("/healthz")
    async def health() -> dict[str, str | int]:
        """Whether the console answers, and how many runs it holds."""
        return {"status": "ok", "runs": len(projection.runs())}


def _streams(app: FastAPI, projection: Projection, load: Load) -> None:
    def stream(render: Callable[[], str]) -> StreamingResponse:
        return StreamingResponse(live.fragments(projection, render), media_type="text/event-stream")

    @app.get("/live/runs", include_in_schema=False)
    async def runs() -> StreamingResponse:
        return stream(lambda: views.runs_fragment(projection))

    @app.get("/live/alerts", include_in_schema=False)
    async def alerts() -> StreamingResponse:
        return stream(lambda: views.alerts_fragment(projection))

    @app.get("/live/runs/{tenant}/{name}", include_in_schema=False)
    async def run(tenant: str, name: str) -> StreamingResponse:
        found = await _find(projection, load, tenant, name)
        return stream(lambda: views.run_fragment(projection.run(found.ref) or found, projection))

    @app.get(
        "/api/runs/{tenant}/{name}/facts",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}}},
    )
    async def facts(
        tenant: str, name: str, last_event_id: Annotated[int, Header(ge=0)] = 0
    ) -> StreamingResponse:
        """Every fact of a run as a server-sent event, then each new one as it is stated."""
        found = await _find(projection, load, tenant, name)

        def newer(seq: int) -> list[tuple[int, str]]:
            run = projection.run(found.ref) or found
            return [(r.seq, api.fact_of(r).model_dump_json()) for r in run.log if r.seq > seq]

        return StreamingResponse(
            live.items(projection, last_event_id, newer), media_type="text/event-stream"
        )


def _twins(app: FastAPI, projection: Projection, load: Load) -> None:
    @app.get("/api/runs")
    async def runs() -> list[api.RunSummary]:
        """Every run the console remembers, the one with the newest fact first."""
        return [api.summary_of(run) for run in projection.runs()]

    @app.get("/api/runs/{tenant}/{name}")
    async def run(tenant: str, name: str) -> api.RunStory:
        """One run: its rail, ending, progress and every fact."""
        return api.story_of(await _find(projection, load, tenant, name), projection)

    @app.get("/api/alerts")
    async def alerts() -> list[Alert]:
        """The newest state of each incident."""
        return projection.alerts()


def _commands(app: FastAPI, projection: Projection, load: Load, command: Commands) -> None:
    async def send(tenant: str, name: str, verb: story.Verb) -> Run:
        if not (re.fullmatch(SLUG, tenant) and re.fullmatch(SLUG, name)):
            raise HTTPException(404, "no such run")
        run = await _find(projection, load, tenant, name)
        if verb not in story.verbs(run):
            raise HTTPException(409, f"a run that is {run.status} cannot take {verb}")
        await command(run.ref, verb)
        return run

    @app.post("/runs/{tenant}/{name}/{verb}", include_in_schema=False)
    async def from_page(tenant: str, name: str, verb: story.Verb) -> RedirectResponse:
        return RedirectResponse(views.path_of(await send(tenant, name, verb)), 303)

    @app.post("/api/runs/{tenant}/{name}/{verb}", status_code=202)
    async def from_program(tenant: str, name: str, verb: story.Verb) -> api.Accepted:
        """Publish a command. What comes of it is stated in the run's log."""
        run = await send(tenant, name, verb)
        return api.Accepted(run=str(run.ref), verb=verb)


def _sessions(app: FastAPI, settings: ConsoleSettings) -> None:
    @app.get("/login", response_class=HTMLResponse, include_in_schema=False)
    async def form() -> str:
        return views.render("login.html", wrong=False)

    @app.post("/login", include_in_schema=False)
    async def sign_in(request: Request) -> Response:
        given = (await labelling.posted(request)).get("token", "")
        header = {"authorization": f"Bearer {given}"}
        if access.rater_of(settings.label_raters, headers=header, cookies={}):
            return _session(request, given, LABEL_PATH)
        if settings.token is not None and not access.signed_in(
            settings.token, headers=header, cookies={}
        ):
            return HTMLResponse(views.render("login.html", wrong=True), 401)
        return _session(request, settings.token or "", "/")


def _session(request: Request, token: str, to: str) -> Response:
    response = RedirectResponse(to, 303)
    response.set_cookie(
        access.COOKIE,
        access.session_of(token),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return response
