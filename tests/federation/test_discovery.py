"""Tests of finding servers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import SystemRandom

from twisted.trial.unittest import SynchronousTestCase

from federation.discovery import Located, in_order
from homeserver.http.dialing import Place
from homeserver.http.dns import Service
from homeserver.http.outbound_errors import CannotConnect
from protocol.identifiers import ServerName
from tests.federation.helpers import ADDRESS, World
from tests.federation.network import Answer, Asked, site

MINUTE = 60


class DiscoveryTests(SynchronousTestCase):
    """The ladder of the specification."""

    def setUp(self) -> None:
        """Make a world with one host on port 443."""
        self.world = World(Path(self.mktemp()))
        self.answer = Answer(404)
        self.asked: list[Asked] = []
        self._serve("example.org")

    def _serve(self, host: str) -> None:
        def handle(asked: Asked) -> Answer:
            self.asked.append(asked)
            return self.answer

        self.world.resolver.hosts[host] = [ADDRESS]
        factory = self.world.authority.tls(site(self.world.network, handle), host)
        self.world.network.listen(ADDRESS, 443, factory)

    def _locate(self, name: str) -> Located:
        return self.world.network.outcome(self.world.discovery.locate(ServerName(name)), 30)

    def _service(self, name: str, *services: tuple[str, int]) -> None:
        self.world.resolver.records[name] = [Service(host, port, 10, 1, 300) for host, port in services]

    def _delegate(self, name: str, cache: str = "") -> None:
        self.answer = Answer(200, b'{"m.server":"%b"}' % name.encode(), {"Cache-Control": cache})

    def test_ports_and_literals_need_no_lookup(self) -> None:
        """An explicit port or an IP literal switches `.well-known` and SRV off (steps 1 and 2)."""
        for name, place in (
            ("example.org:80", Place("example.org", 80, "example.org")),
            ("1.2.3.4", Place("1.2.3.4", 8448, "1.2.3.4")),
            ("1.2.3.4:99", Place("1.2.3.4", 99, "1.2.3.4")),
            ("[2606::1]", Place("2606::1", 8448, "2606::1")),
            ("[2606::1]:99", Place("2606::1", 99, "2606::1")),
        ):
            self.assertEqual(self._locate(name), Located((place,), name))
        self.assertEqual((self.asked, self.world.resolver.asked), ([], []))

    def test_delegation_names_the_delegated_host(self) -> None:
        """After `.well-known`, Host, SNI and certificate are the delegated name (step 3)."""
        self._delegate("matrix.example.org:443")
        self.assertEqual(
            self._locate("example.org"),
            Located((Place("matrix.example.org", 443, "matrix.example.org"),), "matrix.example.org:443"),
        )
        self.assertEqual(self.asked[0].uri, "/.well-known/matrix/server")

    def test_delegation_without_a_port_asks_for_services_of_the_delegated_host(self) -> None:
        """Steps 3.3 and 3.4: SRV of the delegated name, whose own name still goes into TLS."""
        self._delegate("matrix.example.org")
        self._service("_matrix._tcp.matrix.example.org", ("box.example.net", 7))
        self.assertEqual(
            self._locate("example.org"),
            Located((Place("box.example.net", 7, "matrix.example.org"),), "matrix.example.org"),
        )

    def test_delegation_to_a_literal(self) -> None:
        """Step 3.1: port 8448 and the address for Host and certificate."""
        self._delegate("1.2.3.4")
        self.assertEqual(
            self._locate("example.org"), Located((Place("1.2.3.4", 8448, "1.2.3.4"),), "1.2.3.4")
        )

    def test_the_delegated_name_is_not_delegated_again(self) -> None:
        """`.well-known` is asked once."""
        self._delegate("other.example.org")
        self._locate("example.org")
        self.assertEqual(len(self.asked), 1)

    def test_services_without_delegation_keep_the_original_name(self) -> None:
        """Steps 4 and 5: the SRV target is dialled; Host and certificate are the server name."""
        self._service("_matrix._tcp.example.org", ("old.example.net", 1))
        located = self._locate("example.org")
        self.assertEqual(located, Located((Place("old.example.net", 1, "example.org"),), "example.org"))
        self.world.network.advance(2 * 3600)
        self._service("_matrix-fed._tcp.example.org", ("new.example.net", 2))
        self.assertEqual(self._locate("example.org").places[0].host, "new.example.net")

    def test_last_comes_the_default_port(self) -> None:
        """Step 6."""
        self.assertEqual(
            self._locate("example.org"), Located((Place("example.org", 8448, "example.org"),), "example.org")
        )

    def test_a_dot_as_target_means_no_service(self) -> None:
        """RFC 2782."""
        self._service("_matrix-fed._tcp.example.org", (".", 0))
        with self.assertRaises(CannotConnect):
            self._locate("example.org")

    def test_a_bad_well_known_is_no_error(self) -> None:
        """Bad status, JSON, type, name, port or size: go on as if there were none (security: D5)."""
        for answer in (
            Answer(500),
            Answer(200, b"nonsense"),
            Answer(200, b"[" * 50_000),
            Answer(200, b"[]"),
            Answer(200, b"{}"),
            Answer(200, b'{"m.server":5}'),
            Answer(200, b'{"m.server":"a b"}'),
            Answer(200, b'{"m.server":"a:99999"}'),
            Answer(200, b'{"m.server":"x.example"}' + b" " * 70_000),
            Answer(302, headers={"Location": "https://127.0.0.1/"}),
            Answer(302, headers={"Location": "/.well-known/matrix/server"}),
        ):
            self.answer = answer
            self.world.network.advance(2 * 3600)
            self.assertEqual(self._locate("example.org").places[0].port, 8448, answer)

    def test_redirects_of_well_known_are_followed(self) -> None:
        """A redirect to another host counts."""
        self.answer = Answer(301, headers={"Location": "https://second.example/doc"})
        second = Answer(200, b'{"m.server":"third.example:1"}')
        self.world.resolver.hosts["second.example"] = ["93.184.216.99"]
        factory = self.world.authority.tls(site(self.world.network, lambda _: second), "second.example")
        self.world.network.listen("93.184.216.99", 443, factory)
        self.assertEqual(self._locate("example.org").host_header, "third.example:1")

    def _asks_after(self, minutes: int) -> bool:
        before = len(self.asked)
        self.world.network.advance(minutes * MINUTE)
        self._locate("example.org")
        return len(self.asked) > before

    def test_answers_are_kept_as_they_say(self) -> None:
        """`max-age` between five minutes and 48 hours, a day by default."""
        for cache, kept, gone in (
            ("max-age=3600", 59, 2),
            ("public, max-age=99999999", 48 * 60 - 1, 2),
            ("no-store", 4, 2),
            ("", 24 * 60 - 1, 2),
        ):
            self._delegate("d.example:1", cache)
            self.world.network.advance(100 * 3600)
            self.assertTrue(self._asks_after(0))
            self.assertFalse(self._asks_after(kept), cache)
            self.assertTrue(self._asks_after(gone), cache)

    def test_errors_are_kept_shortly_and_longer_each_time(self) -> None:
        """A minute at first, doubling up to an hour."""
        self.assertTrue(self._asks_after(0))
        self.assertFalse(self._asks_after(0))
        self.assertTrue(self._asks_after(2))
        self.assertFalse(self._asks_after(1))
        self.assertTrue(self._asks_after(2))
        for _ in range(10):
            self._asks_after(61)
        self.assertTrue(self._asks_after(61))

    def test_a_good_answer_outlives_failing_refreshes(self) -> None:
        """An expired delegation stays in use while asking again fails."""
        self._delegate("d.example:1", "max-age=600")
        self._locate("example.org")
        self.answer = Answer(503)
        self.world.network.advance(3600)
        self.assertEqual(self._locate("example.org").host_header, "d.example:1")
        self.world.network.advance(60 * 3600)
        self.assertEqual(self._locate("example.org").host_header, "example.org")

    def test_services_go_by_priority_then_weight(self) -> None:
        """Lower priority first; within one, a heavier record comes first more often."""
        services = [
            Service("last", 1, 20, 100, 1),
            Service("light", 1, 10, 1, 1),
            Service("heavy", 1, 10, 99, 1),
        ]
        firsts = Counter(in_order(services, SystemRandom())[0].host for _ in range(300))
        self.assertEqual(in_order(services, SystemRandom())[-1].host, "last")
        self.assertGreater(firsts["heavy"], 200)
