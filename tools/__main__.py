"""python -m tools: the golf command without an installed script."""

from tools.environment import leave
from tools.main import main

leave(main())
