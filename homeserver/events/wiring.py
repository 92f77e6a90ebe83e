"""How the parts hang together that take in events of other servers; `app.py` and tests call it."""

from __future__ import annotations

from attrs import frozen

from homeserver.core import Core
from homeserver.events.auth_chains import AuthChains
from homeserver.events.gaps import Gaps, MissingEvents
from homeserver.events.importing import RoomImport
from homeserver.events.outliers import OutlierJudge
from homeserver.events.outside import OutsideMemberships
from homeserver.events.past import Past
from homeserver.events.placing import Placing
from homeserver.events.policy import PolicyServers
from homeserver.events.received_store import Store
from homeserver.events.receiving import ReceivedEvents
from homeserver.events.resolution import Resolver


@frozen(eq=False)
class Receiving:
    """What places events of others."""

    received: ReceivedEvents
    gaps: Gaps
    imports: RoomImport
    outside: OutsideMemberships
    chains: AuthChains


def make_receiving(core: Core, fetch: MissingEvents, policies: PolicyServers) -> Receiving:
    """Build what places events of others; `fetch` asks other servers for what is missing."""
    store = Store(core.database, core.nids, core.state, core.heads, core.persister, core.clock)
    judge = OutlierJudge(core.author, core.clock)
    received = ReceivedEvents(store, Placing(Resolver(), core.author), policies)
    past = Past(store, received, judge, core.author)
    own_name = core.author.server_name
    return Receiving(
        received,
        Gaps(received, past, fetch, core.nids, core.heads, core.clock, own_name),
        RoomImport(store, received, judge, core.author),
        OutsideMemberships(store, core.author),
        AuthChains(core.database, core.stored, core.nids),
    )
