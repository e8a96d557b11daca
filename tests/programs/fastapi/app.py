# SPDX-License-Identifier: Apache-2.0
"""A FastAPI application on an event loop: a background task of its own counts beside it."""

from __future__ import annotations

import asyncio
import os
import secrets
from contextlib import asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING

from fastapi import FastAPI  # type: ignore[import-not-found]  # of its own venv
from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TICK_S = 0.05
COUNTER = count(1)
TICKS = count(1)


class Memory(BaseModel):
    """What the process remembers."""

    token: str = secrets.token_hex(8)
    count: int
    pid: int
    loop: str
    ticks: int
    edition: str = os.environ.get("EDITION", "1")


async def tick() -> None:
    """Count for ever, so that a timer is pending at the checkpoint."""
    while True:
        app.state.ticks = next(TICKS)
        await asyncio.sleep(TICK_S)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Run the background task as long as the application lives."""
    task = asyncio.create_task(tick())
    yield
    task.cancel()


app = FastAPI(lifespan=lifespan)


@app.get("/")  # type: ignore[untyped-decorator]
async def index() -> Memory:
    """Count the request and answer what the process remembers."""
    loop = type(asyncio.get_running_loop()).__module__.split(".")[0]
    return Memory(count=next(COUNTER), pid=os.getpid(), loop=loop, ticks=app.state.ticks)
