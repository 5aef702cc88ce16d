"""The command `train`: start with `train.py`.

`train_options.py` has its options, `configs.py` the configurations by name, `dataset_summary.py` what is printed before training
and `progress.py` what is printed during it.
"""
