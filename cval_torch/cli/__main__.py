"""`python -m cval_torch.cli`: the same as `cval-torch`."""

import sys

from cval_torch.cli.main import main

sys.exit(main())
