"""Tests of server ACLs."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from protocol.identifiers import ServerName
from protocol.server_acl import ServerAcl


class ServerAclTests(SynchronousTestCase):
    """Which servers may take part."""

    def check(self, content: dict[str, Any], **servers: bool) -> None:
        """Assert the verdict on each server; `_` in a name stands for a dot."""
        acl = ServerAcl.of(content)
        for name, wanted in servers.items():
            self.assertEqual(acl.allows(ServerName(name.replace("_", "."))), wanted, name)

    def test_deny_wins(self) -> None:
        """A server must match `allow` and not match `deny`."""
        content = {"allow": ["*"], "deny": ["evil.example", "*.evil.example", "b?d.example", "w*x*y"]}
        self.check(
            content, good_example=True, evil_example=False, sub_evil_example=False, a_b_evil_example=False
        )
        self.check(content, notevil_example=True, bad_example=False, baad_example=True, w_x_y=False, wxz=True)
        self.check(
            {"allow": ["good.example", "*.org"]}, good_example=True, a_org=True, org=False, b_example=False
        )
        self.check({"allow": ["*evil.example"]}, notevil_example=True, evil_example=True, evil_org=False)

    def test_nobody_is_allowed_without_allow(self) -> None:
        """Without a list of the allowed nobody is (security: F9)."""
        for allow in (None, [], "x", {}, 5, [5, None]):
            self.check({"allow": allow}, a_example=False)
        self.check({}, a_example=False)

    def test_nonsense_denies_nobody(self) -> None:
        """A list of the denied that is none counts as empty, an entry that is none is passed over."""
        for deny in (None, "a.example", {}, 5, [5, None, ["a.example"]], ["x" * 1000 + "*"]):
            self.check({"allow": ["*"], "deny": deny}, a_example=True)

    def test_case_and_port_do_not_matter(self) -> None:
        """Upper case and ports are no way round an ACL (security: F9)."""
        acl = ServerAcl.of({"allow": ["*"], "deny": ["Evil.Example", "*.Bad.example", "[2001:DB8::1]"]})
        for name in (
            "evil.example",
            "EVIL.example:8448",
            "a.BAD.example:1",
            "[2001:db8::1]",
            "[2001:DB8::1]:80",
        ):
            self.assertFalse(acl.allows(ServerName(name)), name)
        self.assertTrue(acl.allows(ServerName("good.example:8448")))

    def test_ip_literals(self) -> None:
        """Addresses may be shut out as a whole, by nothing but false (security: F9)."""
        literals = [ServerName(name) for name in ("1.2.3.4", "1.2.3.4:80", "[::1]", "[::1]:8448")]
        for value, wanted in ((False, False), (True, True), (None, True), ("false", True), (0, True)):
            acl = ServerAcl.of({"allow": ["*"], "allow_ip_literals": value})
            for name in literals:
                self.assertEqual(acl.allows(name), wanted, (value, name))
            self.assertTrue(acl.allows(ServerName("1.2.3.example")))

    def test_hostile_lists(self) -> None:
        """A full event of patterns made to backtrack is compiled and asked without harm (security: D2)."""
        deny = ["*a*a*a*a*a*a*b"] * 3000 + [f"*.{number}" for number in range(3000)] + ["*" * 300]
        acl = ServerAcl.of({"allow": ["*"], "deny": deny[:-1]})
        self.assertTrue(acl.allows(ServerName("a" * 200 + ".example")))
        self.assertFalse(acl.allows(ServerName("x.2999")))
        self.assertFalse(ServerAcl.of({"allow": ["*"], "deny": deny}).allows(ServerName("a.example")))
