"""The process that is the local model: llama.cpp's HTTP server, until it is told to end.

A script, never imported: `python -I llama_process.py`, started by llama.py by way of reaper.py.
Standard input: JSON with `file`, `name`, `port`, `prefix` (of every path; a secret, hence not an
argument, which `ps` shows) and `template` (how messages become text; "" for the file's own).
"""

import json
import os
import signal
import sys
from importlib import import_module
from typing import Any

# Requests that are worked on at a time; the others wait in the server.
SLOTS = 2
MOST_THREADS = 8
CONTEXT = 4_096  # tokens of one request and its answer
# Of an answer, where the request names no other figure: a small model may not find its end.
LONGEST_ANSWER = 1_024
# Each request holds one while it waits, and whoever asks whether we live must not wait for them.
HTTP_THREADS = 128
ERRORS = 1  # what goes to the log, which is kept in memory: never a line for each request


def main() -> None:
    """Serve until a signal comes."""
    spec = json.load(sys.stdin)
    server = import_module("xllamacpp").Server(_parameters(spec))
    signal.pause()
    del server


def _parameters(spec: dict[str, Any]) -> Any:
    parameters = import_module("xllamacpp").CommonParams()
    parameters.model.path = spec["file"]
    parameters.model_alias = {spec["name"]}
    parameters.chat_template = spec["template"]
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = spec["port"]
    parameters.api_prefix = spec["prefix"]
    parameters.n_parallel = SLOTS
    parameters.n_ctx = SLOTS * CONTEXT
    for cpu in (parameters.cpuparams, parameters.cpuparams_batch):
        # One core is left to everybody else, and nobody waits by spinning: its threads wait for
        # each other after each layer, and with one of them off its core a token takes 260 ms
        # instead of 28. One thread on two cores takes 46 ms whatever else goes on.
        cpu.n_threads = max(1, min(MOST_THREADS, (os.cpu_count() or 2) - 1))
        cpu.poll = 0
    # The whole context of every layer: else instructions that all requests begin with would be read
    # anew each time, since this model looks back 512 tokens in most of its layers.
    parameters.swa_full = True
    parameters.n_predict = LONGEST_ANSWER
    # The likeliest token, unless the request wants chance: the same alert gets the same answer.
    sampling = parameters.sampling
    sampling.temp = 0.0
    # Alone that runs in circles: what it has just written becomes the less likely, the longer.
    sampling.dry_multiplier, sampling.dry_allowed_length, sampling.dry_penalty_last_n = 0.8, 4, 96
    parameters.n_threads_http = HTTP_THREADS
    parameters.verbosity = ERRORS
    parameters.endpoint_metrics = True
    # What a web page or a neighbour has no business with, and what would fetch or keep more.
    parameters.endpoint_slots = False
    parameters.ui = False
    parameters.cors_origins = "null"
    parameters.offline = True
    parameters.cache_ram_mib = 0
    return parameters


if __name__ == "__main__":
    main()
