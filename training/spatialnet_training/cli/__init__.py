"""The command `train`: `train.py` (its options), `configs.py` (configurations by name), `dataset_summary.py` (printed before
training),
`progress.py` (printed during training).
"""
