"""The command `train`: `train.py` (its options), `configs.py` (a configuration by name), `dataset_summary.py` (what is said of the
images before training), `progress.py` (what is said while training)."""
