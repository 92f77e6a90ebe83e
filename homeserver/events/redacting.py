"""Redactions and their targets, whichever of the two comes first.

Source: rooms/v3.md, "Handling redactions"; security S10.
"""

from __future__ import annotations

from attrs import evolve

from homeserver.events.building import CREATE, POWER_LEVELS, redaction_rows
from homeserver.events.draft import Draft
from homeserver.events.stored import Status, StoredEvent
from protocol.auth_rules import may_redact
from protocol.power_levels import PowerLevels
from storage import events
from storage.rows import Rows


async def with_redactions(
    draft: Draft, stored: StoredEvent
) -> tuple[StoredEvent, tuple[Rows, ...], StoredEvent | None]:
    """Give an accepted event as redactions leave it, their rows, and the event that it redacts itself.

    The draft has looked up what is known of the event (`Draft.look_up`).
    """
    rows: tuple[Rows, ...] = ()
    redaction = await applying_redaction(draft, stored)
    if redaction is not None:
        stored = evolve(stored, redacted_by=redaction)
        rows = (events.redacted_by_rows(draft.room.nid, stored.nid, redaction),)
    event_id = stored.event.redacts
    if event_id is None:
        return stored, rows, None
    target = (await draft.by_id((event_id,))).get(event_id)
    if target is not None and not await applies(draft, stored, target):
        target = None
    draft.redactions.setdefault(event_id, []).append(stored.nid)
    return stored, rows + redaction_rows(stored, target), target


async def applies(draft: Draft, redaction: StoredEvent, target: StoredEvent) -> bool:
    """Tell whether an accepted redaction applies, by the state it was sent in."""
    if redaction.status is not Status.ACCEPTED or redaction.event.redacts != target.event.event_id:
        return False
    if redaction.event.version.redaction_auth_rule:
        return True
    if redaction.root_before is None:
        return False
    state = await draft.bare_state(redaction.root_before, (CREATE, POWER_LEVELS))
    power = PowerLevels.of(redaction.event.version, state[CREATE], state.get(POWER_LEVELS))
    return may_redact(redaction.event, target.event, power)


async def applying_redaction(draft: Draft, target: StoredEvent) -> int | None:
    """Give the nid of the first redaction that has waited for an event and applies to it."""
    nids = draft.redactions.get(target.event.event_id, ())
    found = await draft.by_nid(nids)
    for nid in nids:
        if nid in found and await applies(draft, found[nid], target):
            return nid
    return None
