"""
Draw assets/scaling.png from assets/scaling.json, which this command wrote:

$ python bench.py --mode=scaling --json=assets/scaling.json
"""

import sys
from pathlib import Path

here = Path(__file__).resolve().parent
sys.path.insert(0, str(here.parent))

from nanorap.bench.measurements import plot_scaling, read_figures  # noqa: E402

plot_scaling(read_figures(here / 'scaling.json'), here / 'scaling.png')
