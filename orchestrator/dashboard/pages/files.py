"""/static: the look of the pages, for everybody."""

from fastapi import Request
from starlette.responses import Response

from orchestrator.dashboard.assets import Assets
from orchestrator.dashboard.routing import pages

router = pages()


@router.get("/static/{version}/{name:path}")
async def read_file(request: Request, version: str, name: str) -> Response:
    """One file, good for ever under its version."""
    assets: Assets = request.app.state.assets
    return assets.answer(version, name)
