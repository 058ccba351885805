"""Tests the manifests on a real cluster, in a namespace of its own. `make k8s-test` runs it.

Exit code 0: every step holds; 1: one does not, or something could not be put back; 2: the test cannot
begin; 130 and 143: ended by Ctrl-C or SIGTERM.
"""

import sys

from program import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
