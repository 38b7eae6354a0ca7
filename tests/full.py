"""What only `make test-full` runs."""

import os

FULL = bool(os.environ.get("QHAT_FULL"))
