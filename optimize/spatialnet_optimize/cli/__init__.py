"""The commands `build`, `evaluate`, `export`, `reproduce`, `cost` and `targets`, one short file each."""
