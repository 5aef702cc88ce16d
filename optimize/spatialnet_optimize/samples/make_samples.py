"""Make the shipped sample sets from the full data sets, with held-out training images only.

    python make_samples.py DATA_ROOT

The hash rule for "held out" is `spatialnet_training.data.samples.held_out`: no shipped model was trained on these images, and
no reported validation result uses them.
"""

import csv
import io
import sys
import zipfile
from pathlib import Path

from spatialnet_training.data.samples import held_out

PER_CLASS = 30
SETS = {"eurosat": "eurosat_rgb.zip", "ucmerced": "ucmerced.zip"}


def main(root: Path) -> None:
    for name, archive in SETS.items():
        with (
            zipfile.ZipFile(root / archive) as source,
            zipfile.ZipFile(Path(__file__).with_name(f"{name}.zip"), "w") as target,
        ):
            rows = csv.DictReader(io.StringIO(source.read("splits.csv").decode()))
            counts: dict[str, int] = {}
            chosen: list[str] = []
            for path in sorted(row["path"] for row in rows if row["split"] == "train" and held_out(row["path"])):
                kind = path.split("/")[1]
                counts[kind] = counts.get(kind, 0) + 1
                if counts[kind] <= PER_CLASS:
                    chosen.append(path)
            for path in chosen:
                target.writestr(zipfile.ZipInfo(path), source.read(path))
            if "objects.csv" in source.namelist():
                header, *lines = source.read("objects.csv").decode().splitlines()
                kept = [line for line in lines if line.partition(",")[0] in set(chosen)]
                target.writestr(zipfile.ZipInfo("objects.csv"), "\n".join([header, *kept]) + "\n")
            print(name, len(chosen), "images")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
