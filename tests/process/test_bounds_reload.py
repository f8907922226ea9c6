"""The bounds of callers' connections follow a changed file, for the connections opened from then on."""

from __future__ import annotations

from tests.kit.process import started, written
from tests.kit.raw import connect, head

REST = (
    "upstreams: {up: {url: 'http://127.0.0.1:1', dialect: rest}}\n"
    "routes: [{name: a, path: /a, upstream: up}]\n"
)


async def test_a_new_bound_of_the_address_holds_for_new_connections(tmp_path):
    asked = head("GET", "/" + "x" * 200)
    file = written(tmp_path, "headers: {max_url: 100B}\n" + REST)
    async with started("serve", str(file)) as proxy:
        url = f"http://{(await proxy.until('started'))['listen']}"
        async with connect(url) as before, connect(url) as raw:
            await raw.send(asked)
            assert (await raw.reply()).status == 414
            written(tmp_path, "headers: {max_url: 300B}\n" + REST)
            await proxy.until("reloaded")
            async with connect(url) as after:
                await after.send(asked)
                assert (await after.reply()).status == 404, "no such route"
            await before.send(asked)
            assert (await before.reply()).status == 414
