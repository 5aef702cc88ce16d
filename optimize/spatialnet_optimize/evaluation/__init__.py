"""What a model is worth, and which model may fly.

Start with `metrics.py` (accuracy, agreement, latency), then `candidate_evaluation.py` (the same for every candidate of a build),
`gates.py` (which candidate passes) and `pareto.py` (accuracy against latency).
"""
