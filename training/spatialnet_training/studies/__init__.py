"""Questions about a network or its data, each a command that prints a table.

`baseline.py` (traditional features), `ablation.py` (what each part is worth), `soup.py` (averaged weights),
`near_duplicates.py` (images on both sides of a split) and `missing_bands.py` (answers without some bands).
"""
