"""Tests of the address policy."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from homeserver.config.sections import PRIVATE_RANGES
from homeserver.http.addresses import IpPolicy, parse_literal

PRIVATE = (
    "0.0.0.0",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "0:0:0:0:0:0:0:1",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "::ffff:10.0.0.1",
    "0:0:0:0:0:ffff:c0a8:0101",
    "::127.0.0.1",
    "::10.1.2.3",
    "::ffff:0.0.0.0",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a00:1",
    "64:ff9b:1::7f00:1",
    "64:ff9b:1:abcd::192.168.0.1",
    "2002:7f00:1::",
    "2002:7f00:0001::1",
    "2002:a00:1::",
    "2002:c0a8:101::c0a8:101",
    "2001:0:7f00:1::",
    "2001::53aa:64c:0:0:80ff:fffe",
    "2001:db8::1",
    "fe80::1",
    "fe80::1%eth0",
    "fe80::1%25eth0",
    "febf::1",
    "fec0::1",
    "fc00::1",
    "fd00::1",
    "fdff:ffff::1",
    "ff02::1",
    "2600::5efe:7f00:1",
    "2600::200:5efe:10.0.0.1",
    "2606:4700::1111%1",
)
NOT_ADDRESSES = (
    "",
    "localhost",
    "127.1",
    "0177.0.0.1",
    "0x7f.0.0.1",
    "0x7f000001",
    "2130706433",
    "010.0.0.1",
    "127.0.0.1 ",
    " 127.0.0.1",
    "127.0.0.1\n",
    "127.0.0.256",
    "１２７.0.0.1",
    "[::1]",
    "::g",
)
PUBLIC = ("1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450::8a", "::ffff:8.8.8.8")


class IpPolicyTests(SynchronousTestCase):
    """The default deny-list."""

    def setUp(self) -> None:
        """Take the default."""
        self.policy = IpPolicy.of(PRIVATE_RANGES, ())

    def test_private_addresses_in_every_spelling_are_denied(self) -> None:
        """No spelling of a private address is permitted (security: M5)."""
        for address in PRIVATE:
            self.assertFalse(self.policy.permits(address), address)

    def test_what_is_no_address_is_denied(self) -> None:
        """Only the spelling that is dialled parses; octal, decimal, blanks do not (security: M5, X6)."""
        for address in NOT_ADDRESSES:
            self.assertFalse(self.policy.permits(address), address)
            if address != "[::1]":
                self.assertIsNone(parse_literal(address), address)

    def test_public_addresses_are_permitted(self) -> None:
        """Ordinary addresses may be dialled."""
        for address in PUBLIC:
            self.assertTrue(self.policy.permits(address), address)

    def test_the_allow_list_wins(self) -> None:
        """An address in both lists may be dialled, also in its mapped form, and no other."""
        policy = IpPolicy.of(PRIVATE_RANGES, ("10.1.0.0/16",))
        self.assertTrue(policy.permits("10.1.2.3"))
        self.assertTrue(policy.permits("::ffff:10.1.2.3"))
        self.assertFalse(policy.permits("10.2.0.1"))

    def test_an_empty_deny_list_permits_loopback(self) -> None:
        """A loopback test network empties the list."""
        self.assertTrue(IpPolicy.of((), ()).permits("127.0.0.1"))
