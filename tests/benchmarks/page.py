"""Twenty people at the page for a minute: who is answered, who is told that it is busy, and what is left in memory.

Serves the demo run in a process of its own, so `make run-all` comes first.
"""

import subprocess
import sys
import threading
import time
from collections import Counter

import psutil
from gradio_client import Client

from helpers.base.files import ROOT, runs_folder
from helpers.checkpoint import has_checkpoint

USERS, SECONDS, TOKENS = 20, 60, 60


def run() -> dict:
    """A minute of it; prints and returns the counts."""
    if not has_checkpoint(runs_folder("demo") / "gpt/best"):
        sys.exit("error: no demo run to serve: `make run-all` first")
    line = [sys.executable, "-m", "helpers", "demo", "--port", "7899"]
    server = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        address = server.stdout.readline().split()[0]
        return _crowd(address, psutil.Process(server.pid))
    finally:
        server.terminate()
        server.wait()


def _ask(client: Client, user: int) -> str:
    reply = client.predict(f"Part {user} of", new_tokens=TOKENS, seed=user, api_name="/write")
    return reply["completions"][0]["text"]


def _crowd(address: str, server: psutil.Process) -> dict:
    clients = [Client(address, verbose=False) for _ in range(USERS)]
    right = [_ask(client, user) for user, client in enumerate(clients)]  # each alone
    before, end, counts, lock = server.memory_info().rss, time.perf_counter() + SECONDS, Counter(), threading.Lock()

    def use(user: int) -> None:
        while time.perf_counter() < end:
            try:
                outcome = "answered" if _ask(clients[user], user) == right[user] else "another's text"
            except Exception as error:
                outcome = "told it is busy" if "full" in str(error).lower() else f"failed: {error}"
            with lock:
                counts[outcome] += 1
                counts[f"user {user} answered"] += outcome == "answered"

    threads = [threading.Thread(target=use, args=(user,)) for user in range(USERS)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    time.sleep(5)
    grown = (server.memory_info().rss - before) / 2**20
    least = min(counts.pop(f"user {user} answered") for user in range(USERS))
    print(f"{USERS} users, {SECONDS} s: {dict(counts)}; at least {least} answers each; memory {grown:+.0f} MiB")
    return {**counts, "least_answered": least, "memory_grown_MiB": grown}
