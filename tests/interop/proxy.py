"""A TCP proxy in a process of its own, to stand before a federation port and make partitions.

`python -m tests.interop.proxy LISTEN TARGET` passes connections on. SIGUSR1 cuts: every connection is
reset and the port is closed, so peers are refused at once. SIGUSR2 heals: the port listens again.
"""

from __future__ import annotations

import asyncio
import signal
import sys

from attrs import field, mutable

HOST = "127.0.0.1"
CHUNK = 65536


@mutable
class Proxy:
    """Passes bytes between a listening port and a target port until cut."""

    listen: int
    target: int
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(factory=set)
    _changes: asyncio.Queue[bool] = field(factory=asyncio.Queue)

    async def run(self) -> None:
        """Serve, and obey cut and heal in the order they come, forever."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, self._changes.put_nowait, False)
        loop.add_signal_handler(signal.SIGUSR2, self._changes.put_nowait, True)
        await self._heal()
        while True:
            await (self._heal() if await self._changes.get() else self._cut())

    async def _heal(self) -> None:
        """Listen, if not listening."""
        if self._server is None:
            self._server = await asyncio.start_server(self._carry, HOST, self.listen)

    async def _cut(self) -> None:
        """Close the port and reset what is open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until either side ends it."""
        try:
            target_reader, target_writer = await asyncio.open_connection(HOST, self.target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, target_writer}
        await asyncio.gather(_pump(reader, target_writer), _pump(target_reader, writer))
        self._writers -= {writer, target_writer}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes one way until the end, then close that way."""
    try:
        while chunk := await reader.read(CHUNK):
            writer.write(chunk)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


if __name__ == "__main__":
    asyncio.run(Proxy(int(sys.argv[1]), int(sys.argv[2])).run())
