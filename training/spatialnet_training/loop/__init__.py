"""One training run, from a configuration to a network.

Start with `training_run.py` (load, train, calibrate, save), then `trainer.py` (the loop itself). `run_fingerprint.py` decides
whether a folder holds the same run; `evaluation.py` measures a network on held-out images; `run_card.py` writes its page.
"""
