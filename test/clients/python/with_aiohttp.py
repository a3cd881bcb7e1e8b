"""aiohttp against a duplex route: with_aiohttp.py talk|echo|upload|expect URL [bytes]. Prints what it receives."""

import asyncio
import hashlib
import sys

import aiohttp

from body import CHUNK_SIZE, random_chunks

mode, url, size = sys.argv[1], sys.argv[2], int((sys.argv + ["0"])[3])


async def talk():
    """aiohttp sends the body in another task, so the response can be read meanwhile."""
    words = asyncio.Queue()

    async def body():
        while word := await words.get():
            yield word

    await words.put(b"one")
    async with aiohttp.ClientSession() as session, session.post(url, data=body()) as response:
        print((await response.content.readany()).decode())
        for word in (b"two", b"three"):
            await words.put(word)
            print((await response.content.readany()).decode())
        await words.put(None)
        print("end", len(await response.read()))


async def echo():
    sent, received = hashlib.sha256(), hashlib.sha256()

    async def body():
        for chunk in random_chunks(size, sent):
            yield chunk

    async with aiohttp.ClientSession() as session, session.post(url, data=body()) as response:
        async for chunk in response.content.iter_any():
            received.update(chunk)
    print(size, sent.digest() == received.digest())


async def upload(**options):
    sent = 0

    async def body():
        nonlocal sent
        for _ in range(size // CHUNK_SIZE):
            yield bytes(CHUNK_SIZE)
            sent += CHUNK_SIZE

    async with aiohttp.ClientSession() as session:
        async with session.post(url, data=body(), **options) as response:
            print(response.status, len(await response.read()) > 0, sent == size, sent == 0)


async def expect():
    await upload(expect100=True)


asyncio.run(globals()[mode]())
