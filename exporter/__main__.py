"""`python -m exporter` is the command `vllm-exporter`."""

import sys

from exporter.cli import main

sys.exit(main())
