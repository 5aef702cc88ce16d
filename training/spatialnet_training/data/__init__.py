"""Labelled images: files, labels and batches.

Start with `labelled_dataset.py` (folders, zips and tables), then `ground_truth.py` (labels of a model's heads), `samples.py`
(images in memory), `dataloader.py` and `augmentation.py` (training batches). `taxonomy.py` joins the published data sets.
"""
