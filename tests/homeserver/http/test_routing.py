"""Tests of the route table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from homeserver.http.calls import EMPTY, Call, Reply
from homeserver.http.routing import Route, RouteTable
from protocol.errors import InvalidParam, MethodNotAllowed, Unrecognized


async def handler(call: Call[Any]) -> Reply:
    """Do nothing."""
    return EMPTY


def table(*routes: tuple[str, str | Sequence[str]]) -> RouteTable:
    """Make a table of methods and paths."""
    return RouteTable(Route(method, paths, handler) for method, paths in routes)


class RouteTableTests(SynchronousTestCase):
    """Finding an endpoint by its raw path."""

    def test_parameters_are_decoded_after_the_path_is_split(self) -> None:
        """An encoded slash or colon is part of its parameter."""
        routes = table(("GET", "/rooms/{room_id}/event/{event_id}"))
        found = routes.match("GET", b"/rooms/%21a%3Ab/event/%24x%2Fy%20%C3%A9")
        self.assertEqual(found.params, {"room_id": "!a:b", "event_id": "$x/y é"})

    def test_a_name_goes_before_a_parameter_but_does_not_hide_it(self) -> None:
        """Where a name leads nowhere, the parameter beside it is tried."""
        routes = table(("GET", "/user/{user}/name"), ("GET", "/user/me/age"), ("GET", "/user/me"))
        self.assertEqual(routes.match("GET", b"/user/me/name").params, {"user": "me"})
        self.assertEqual(routes.match("GET", b"/user/me/age").params, {})

    def test_the_method_may_be_on_the_other_branch(self) -> None:
        """A name without the method does not hide a parameter that has it."""
        routes = table(("PUT", "/a/{x}"), ("GET", "/a/b"))
        self.assertEqual(routes.match("PUT", b"/a/b").params, {"x": "b"})

    def test_wrong_method_is_told_apart_from_no_such_path(self) -> None:
        """405 for a known path, 404 for an unknown one."""
        routes = table(("GET", "/a/{x}"))
        self.assertRaises(MethodNotAllowed, routes.match, "PUT", b"/a/b")
        for path in (b"/a", b"/a/", b"/a/b/", b"/a/b/c", b"//a/b", b"a/b", b"", b"*", b"/", b"/" * 50):
            self.assertRaises(Unrecognized, routes.match, "GET", path)

    def test_head_is_get(self) -> None:
        """HEAD finds the route of GET."""
        self.assertEqual(table(("GET", "/a")).match("HEAD", b"/a").params, {})

    def test_the_last_parameter_may_be_empty_where_declared(self) -> None:
        """A star lets the trailing slash stand for the empty text."""
        routes = table(("PUT", ("/state/{kind}/{key*}", "/state/{kind}")))
        self.assertEqual(routes.match("PUT", b"/state/m.x/").params, {"kind": "m.x", "key": ""})
        self.assertEqual(routes.match("PUT", b"/state/m.x/k").params, {"kind": "m.x", "key": "k"})
        self.assertEqual(routes.match("PUT", b"/state/m.x").params, {"kind": "m.x"})

    def test_further_paths_lead_to_the_same_route(self) -> None:
        """Aliases share one declaration."""
        routes = table(("GET", ("/v3/x", "/r0/x")))
        self.assertIs(routes.match("GET", b"/v3/x").route, routes.match("GET", b"/r0/x").route)

    def test_names_may_be_percent_encoded(self) -> None:
        """`%5F` is `_` also in a name."""
        self.assertEqual(table(("GET", "/_matrix")).match("GET", b"/%5Fmatrix").params, {})

    def test_bad_utf8_is_refused(self) -> None:
        """A parameter that is no text is a 400."""
        self.assertRaises(InvalidParam, table(("GET", "/a/{x}")).match, "GET", b"/a/%FF")

    def test_two_routes_at_one_place_are_a_mistake(self) -> None:
        """The same method and path twice cannot be declared."""
        self.assertRaises(ValueError, table, ("GET", "/a/{x}"), ("GET", "/a/{y}"))
