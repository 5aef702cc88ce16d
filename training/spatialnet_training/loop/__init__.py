"""A training run, from a configuration to a network.

Start with `training_run.py` (load, train, calibrate, save), then `trainer.py` (the training loop). `run_fingerprint.py` checks
whether a folder holds the same run; `evaluation.py` evaluates a network on held-out images; `run_card.py` writes its HTML
card.
"""
