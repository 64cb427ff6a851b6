#!/usr/bin/env python3
"""Rolling restarts under load, as many as asked.

Usage: rolling.py PATH_OF_KAGENT_PROXY [REPLACEMENTS]. Replaces that many pods (1,000 without a number) of an agent
and of a tool server by `kubectl rollout restart` while clients call; scenarios/g_rolling.py does it and prints
the counts.
"""

import os
import sys

import run

if __name__ == "__main__":
    # Read again inside the namespaces, where the program is started anew with the same arguments.
    os.environ["KAGENT_PROXY_REPLACEMENTS"] = sys.argv[2] if sys.argv[2:] else "1000"
    sys.exit(run.main(sys.argv[1], ["g_rolling"]))
