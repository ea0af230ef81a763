"""Administration of adapters: list, load, unload, pin, unpin.

A caller sees and touches its own tenant's registered adapters alone, whose cards serving has
verified; files come from the artifact store, never from a path in a request. Changing what is
loaded needs the right to administer. vLLM's two route names do the same as ours.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

from fastapi import APIRouter, Depends

from contracts.serving import AdapterListing, ServedAdapter
from services.serving.directory import Directory, Target
from services.serving.engine.port import Engine
from services.serving.http.errors import HttpError
from services.serving.http.wire import AdapterRequest
from services.serving.keys import Caller
from services.serving.residency import Residency, served

Change = Literal["load", "unload", "pin", "unpin"]


def routes(
    caller: Callable[..., Awaitable[Caller]],
    directory: Directory,
    held: Callable[[], tuple[Engine, Residency]],
    named: Callable[[str, str], Awaitable[Target]],
) -> APIRouter:
    """The routes. `named` gives the adapter of an id and a tenant; raises UnknownModel."""
    router = APIRouter()
    who = Depends(caller)

    async def administrator(who: Caller = who) -> Caller:
        if "administer" not in who.scopes:
            raise HttpError(
                403,
                "this key may not administer adapters",
                code="forbidden",
                mend="use the platform's service key, or name the tenant in "
                "SLUICE_SERVING_ADMINISTRATORS",
            )
        return who

    admin = Depends(administrator)

    def describe(tenant: str, adapter_id: str) -> ServedAdapter:
        return served(directory, held()[1], tenant, adapter_id)

    @router.get("/v1/adapters")
    async def adapters(who: Caller = who) -> AdapterListing:
        engine, _ = held()
        return AdapterListing(
            data=tuple(describe(who.tenant, one) for one in directory.adapters(who.tenant)),
            max_lora_rank=engine.info.max_lora_rank,
        )

    @router.post("/v1/adapters/{adapter_id}/{change}")
    async def changed(adapter_id: str, change: Change, who: Caller = admin) -> ServedAdapter:
        target, residency = await named(adapter_id, who.tenant), held()[1]
        match change:
            case "load":
                await residency.load(target)
            case "unload":
                await residency.unload(target)
            case "pin":
                await residency.pin(target)
            case "unpin":
                await residency.unpin(target)
        return describe(who.tenant, adapter_id)

    @router.post("/v1/load_lora_adapter")
    async def load_as_vllm(body: AdapterRequest, who: Caller = admin) -> ServedAdapter:
        _require_no_path(body)
        return await changed(body.lora_name, "load", who)

    @router.post("/v1/unload_lora_adapter")
    async def unload_as_vllm(body: AdapterRequest, who: Caller = admin) -> ServedAdapter:
        return await changed(body.lora_name, "unload", who)

    return router


def _require_no_path(body: AdapterRequest) -> None:
    if body.lora_path is not None:
        raise HttpError(
            400,
            "adapters are never loaded from a path in a request",
            code="invalid_request",
            mend="register the adapter and send its id as lora_name alone",
        )
