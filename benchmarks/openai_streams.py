"""2,000 concurrent streams through engine `openai`, against bare httpx loops doing the same.

A server in a process of its own streams 64 tokens a request. All clients read every event as JSON
and join the text; the engine also keeps order, counts, retries and laziness. httpx looks through
all of a client's connections for each request, so beside the plain loop, one client for all, there
is one with as many connections a client as the engine has. Rounds alternate, the plain loop runs
once, the medians are compared. Exit 1 where the engine is more than 15 % slower than the better.

    nox -s bench -- openai_streams [STREAMS] [ROUNDS]
"""

import asyncio
import itertools
import json
import multiprocessing
import resource
import statistics
import sys
import time
from contextlib import AsyncExitStack
from multiprocessing.connection import Connection

import httpx

from g4eval.concurrency import most_in_flight, side_by_side
from g4eval.config import SamplingParams
from g4eval.engines.openai_http import OpenAIEngine, OpenAIOptions
from g4eval.engines.server_connection import CONNECTIONS_A_CLIENT
from g4eval.records import Attempt, Chat, Message, Request

TOKENS = 64
BATCH = 8  # tokens that arrive together, as they do when a server makes one step for all streams
ALLOWED_LOSS = 0.15


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one connection's requests."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            if head.startswith(b"GET"):
                models = b'{"data": [{"id": "tiny"}]}'
                length = str(len(models)).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
                    + length
                    + b"\r\n\r\n"
                    + models
                )
                continue
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
            await reader.readexactly(int(fields[b"content-length"]))
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
            )
            for start in range(0, TOKENS, BATCH):
                for number in range(start, start + BATCH):
                    event = {
                        "id": "chatcmpl-1",
                        "object": "chat.completion.chunk",
                        "model": "tiny",
                        "choices": [{"index": 0, "delta": {"content": f"word{number} "}}],
                    }
                    write_event(writer, json.dumps(event).encode())
                await writer.drain()
                await asyncio.sleep(0.05)
            write_event(writer, b'{"choices": [{"delta": {}, "finish_reason": "stop"}]}')
            write_event(writer, b"[DONE]")
            writer.write(b"0\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


def write_event(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Write one event as one chunk."""
    event = b"data: " + data + b"\n\n"
    writer.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")


def run_server(pipe: Connection, streams: int) -> None:
    """Serve until the parent ends this process."""

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=streams)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    raise_file_limit()
    asyncio.run(main())


def raise_file_limit() -> None:
    """Allow as many open files as the system lets this user have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def bare(base_url: str, streams: int, a_client: int | None = None) -> int:
    """Read all streams with httpx alone, so many a client; return the characters read."""

    async def one(client: httpx.AsyncClient, number: int) -> int:
        body = {
            "model": "tiny",
            "messages": [{"role": "user", "content": f"question {number}"}],
            "stream": True,
            "seed": number,
        }
        pieces = []
        async with client.stream("POST", "/chat/completions", json=body) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    delta = json.loads(line[6:])["choices"][0]["delta"]
                    pieces.append(delta.get("content") or "")
        return len("".join(pieces))

    limits = httpx.Limits(max_connections=None)
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                httpx.AsyncClient(base_url=base_url, limits=limits, timeout=None)
            )
            for _ in range(0, streams, a_client or streams)
        ]
        several = itertools.cycle(clients)
        return sum(await asyncio.gather(*(one(next(several), i) for i in range(streams))))


async def bare_divided(base_url: str, streams: int) -> int:
    """Read them as `bare` does, with as many connections a client as the engine has."""
    return await bare(base_url, streams, CONNECTIONS_A_CLIENT)


async def engine(base_url: str, streams: int) -> int:
    """Read all streams through the engine; return the characters read."""
    requests = (
        Request(
            key=str(number),
            task_id="bench",
            task_version=1,
            sample_id=str(number),
            repeat=0,
            prompt=Chat((Message(role="user", content=f"question {number}"),)),
            sampling=SamplingParams(max_new_tokens=TOKENS),
            seed=number,
        )
        for number in range(streams)
    )
    total = 0
    options = OpenAIOptions(concurrency=streams)
    async with OpenAIEngine(options, model="tiny", base_url=base_url) as openai:
        work = (openai.answer(request) for request in requests)
        async for result in side_by_side(work, lambda: most_in_flight(openai)):
            assert not isinstance(result, Attempt), result
            total += len(result.text)
    return total


def main(streams: int = 2000, rounds: int = 3) -> int:
    """Run both in turn, print each round and the medians, return the exit code."""
    raise_file_limit()
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=run_server, args=(theirs, streams), daemon=True)
    server.start()
    base_url = f"http://127.0.0.1:{ours.recv()}/v1"
    expected = streams * sum(len(f"word{n} ") for n in range(TOKENS))
    clients = {"httpx, one client": bare, "httpx, divided": bare_divided, "engine openai": engine}
    seconds: dict[str, list[float]] = {name: [] for name in clients}
    for number in range(rounds):
        for name, client in clients.items():
            if client is bare and number:
                continue  # it takes a minute
            started = time.perf_counter()
            characters = asyncio.run(client(base_url, streams))
            seconds[name].append(time.perf_counter() - started)
            assert characters == expected, (name, characters, expected)
            print(f"{name}: {seconds[name][-1]:.2f} s", flush=True)
    server.terminate()
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    for name, median in medians.items():
        print(
            f"{name:17} {streams:,} streams x {TOKENS} tokens: median {median:.2f} s"
            f" ({streams * TOKENS / median:,.0f} tokens/s),"
            f" rounds {', '.join(f'{t:.2f}' for t in seconds[name])}"
        )
    best = min(medians["httpx, one client"], medians["httpx, divided"])
    ratio = best / medians["engine openai"]
    print(f"the engine runs at {ratio:.2f} of the better loop's speed (at least 0.85 asked for)")
    return 0 if ratio >= 1 - ALLOWED_LOSS else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
