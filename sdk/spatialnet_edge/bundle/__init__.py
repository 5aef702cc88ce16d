"""A model on disk: one file with the graph, its contract, hashes, signature and golden frames.

Start with `manifest.py` (the types), then `reader.py` (open), `writer.py` (write), `storage.py` (directory or zip), `trust.py`
(Ed25519 signatures) and `slots.py` (installed bundles, one of them on trial).
"""
