"""`python -m bench.perf`: the same as `bench perf`; with `--child`, a process that another one gives work."""

import sys

if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        from bench.perf.child import serve

        serve(sys.argv[2:])
    else:
        from bench.cli import app
        from bench.runtime import share_cores

        share_cores()
        app(["perf", *sys.argv[1:]], prog_name="bench")
