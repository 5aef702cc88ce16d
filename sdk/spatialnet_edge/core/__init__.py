"""Types that all packages of the runtime share. Nothing here imports another package of the runtime.

Start with `spec.py` (inputs and outputs of a model), then `frames.py` (a camera frame), `results.py` (a result) and
`errors.py` (all errors, with their exit statuses).
"""
