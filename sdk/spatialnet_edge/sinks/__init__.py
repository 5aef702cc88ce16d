"""Sinks for results.

Start with `registry.py` (the `Sink` protocol and the URI grammar), then `jsonl.py`. `queued.py` puts a bounded queue before
a sink; `journal.py` is the power-safe log; `record_codec.py` is the binary record.
"""
