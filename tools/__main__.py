"""python -m tools: the golf command without an installed script."""

import sys

from tools.main import main

sys.exit(main())
