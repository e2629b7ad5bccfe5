"""Stories of models, for people who ask what happened."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from agents.controller.api.access import VIEWER
from agents.controller.api.bodies import BoundedRoute
from agents.controller.api.common import TheController
from jobs.models.names import model_name
from jobs.store import story
from jobs.wire.storyviews import StoryView

router = APIRouter(route_class=BoundedRoute)


@router.get("/stories/{name}", dependencies=[VIEWER])
async def tell(
    name: str, controller: TheController, limit: Annotated[int, Query(ge=1, le=2000)] = 200
) -> StoryView:
    wanted = model_name(name)
    return await controller.db.read(lambda session: story.story(session, wanted, limit))
