"""``python -m tunesmith``: the same as the command `tunesmith`."""

from __future__ import annotations

import sys

from tunesmith.cli._main import main

sys.exit(main())
