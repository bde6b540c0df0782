# Set-up, the same in every notebook: find the series here or above, in a Kaggle input, or clone it.
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = os.environ.get("SERIES_REPOSITORY", "https://github.com/OWNER/REPO")
clone = Path.cwd() / "gpt2-by-heart"
places = [Path.cwd(), *Path.cwd().parents, clone]
for depth in ("*", "*/*", "*/*/*", "*/*/*/*"):  # attached inputs lie up to four folders down
    places += Path("/kaggle/input").glob(depth)
found = [p for p in places if (p / "helpers/memorization.py").is_file()]
if not found and subprocess.call(["git", "clone", "--quiet", "--depth", "1", REPOSITORY, str(clone)]):
    raise RuntimeError(
        f"the series is not here, and {REPOSITORY} cannot be cloned: set SERIES_REPOSITORY to its address"
    )
sys.path.insert(0, str((found or [clone])[0]))
