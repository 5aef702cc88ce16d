"""The contracts that every room of the runtime shares. Nothing here imports another room.

Start with `spec.py` (what a model takes and answers), then `frames.py` (one camera frame), `results.py` (one answer) and
`errors.py` (everything that can go wrong, with its exit status).
"""
