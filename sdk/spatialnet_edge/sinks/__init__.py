"""Where results go.

Start with `registry.py` (the `Sink` protocol and the URI grammar), then `jsonl.py`. `queued.py` puts a bounded queue in front
of a sink; `journal.py` is the log that a power cut cannot damage; `record_codec.py` is the binary record.
"""
