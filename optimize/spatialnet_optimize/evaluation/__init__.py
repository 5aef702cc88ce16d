"""Evaluation of models, and the gates of a build.

Start with `metrics.py` (accuracy, agreement) and `latency.py`, then `candidate_evaluation.py` (all variants of a build),
`gates.py` (which variant passes) and `pareto.py` (accuracy against latency).
"""
