"""Write real images for the audit demo: held-out brains, each with a lesion of every class in turn.

The class is the folder's name, as `neurofv audit run` reads it. Usage: images.py COHORT OUT
"""

import sys
from pathlib import Path

import nibabel
import numpy as np

from models import ZOO, read_bundle
from training.cohort import CohortError, read_cohort
from training.lesions.brains import paintable
from training.lesions.catalog import BUILT_IN
from training.lesions.images import draw_images

SEED, BRAINS = 5, 2
"""Of the lesions, which no network has met; how many brains."""


def main(root: Path, out: Path) -> int:
    """Write the images, if there is a cohort to make them of."""
    try:
        cohort = read_cohort(root)
    except (CohortError, OSError) as error:
        print(f"without real images: {error}")
        return 1
    # Both networks of the demo were trained on the same subjects.
    held_out = read_bundle(ZOO / "lesion-shapes" / "1").manifest.training.subjects_test
    subjects = tuple(each for each in cohort.subjects if each in held_out)[:BRAINS]
    for row, label, volume in draw_images(paintable(cohort, subjects), 1, SEED):
        folder = out / BUILT_IN.classes[label]
        folder.mkdir(parents=True, exist_ok=True)
        image = nibabel.Nifti1Image(np.asarray(volume, np.float32), cohort.affine)
        nibabel.save(image, folder / f"{subjects[row]}.nii.gz")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), Path(sys.argv[2])))
