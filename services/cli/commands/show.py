"""`sluice show`: the whole story of a run."""

from __future__ import annotations

from services.cli.options import DEFAULT_TENANT, Json, RunName, Tenant


def show(run: RunName, tenant: Tenant = DEFAULT_TENANT, json: Json = False) -> None:
    """Tell a run's whole story: verdicts, numbers, times, where it stopped and what to do."""
    from services.cli.reading import load_run, submitted_at
    from services.cli.reporting import emit
    from services.cli.screen import PlainView, fact_as_json, outcome_as_json
    from services.cli.session import Session, perform, run_ref
    from services.cli.timing import gate_seconds, stage_seconds, times_text

    ref = run_ref(run, tenant)

    async def work(opened: Session) -> None:
        found = await load_run(opened, ref)
        submitted = await submitted_at(opened.js, ref)
        if json:
            document = outcome_as_json(found)
            document.pop("kind")
            document["stages_s"] = stage_seconds(found, submitted)
            document["gates_s"] = gate_seconds(found)
            document["facts"] = [fact_as_json(record) for record in found.log]
            emit(document)
            return
        view = PlainView()
        if not found.log:
            print(f"run {ref} was submitted; no service has taken it yet")
            return
        for record in found.log:
            view.fact(record)
        print(times_text(found, submitted))
        view.outcome(found)

    perform(work)
