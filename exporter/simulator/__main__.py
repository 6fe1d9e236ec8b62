"""`python -m exporter.simulator`: the same program as `vllm-exporter simulate`."""

from __future__ import annotations

import argparse
import sys

from exporter.simulator.cli import add_arguments, main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="vllm-exporter simulate")
    add_arguments(parser)
    sys.exit(main(parser.parse_args()))
