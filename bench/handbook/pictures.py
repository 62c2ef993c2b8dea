"""The pictures of the page on the audit, made again by the commands that stand there."""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.errors import BenchError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "audit.md"
_FILE = re.compile(r"<!-- file: (\S+) -->\n```\w*\n(.*?)```", re.DOTALL)
_COMMANDS = re.compile(r"<!-- pictures: (\S+) -->\n```sh\n(.*?)```", re.DOTALL)


def commands(page: str) -> list[tuple[str, str]]:
    """The commands of a page that make its pictures, in their order, each with the name that stands before it.

    Args:
        page: Markdown with blocks behind `<!-- pictures: NAME -->`; a name with an ending is the picture's file.
    """
    return _COMMANDS.findall(page)


def draw(page: str, folder: Path) -> list[Path]:
    """Run the commands in an empty folder and keep the pictures.

    Args:
        page: as `commands` takes it; files that it shows behind `<!-- file: NAME -->` are there.
        folder: where the pictures go.

    Raises:
        BenchError: a command fails, or does not make the picture that it is named after.
    """
    made: list[Path] = []
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        for name, text in _FILE.findall(page):
            Path(work, name).write_text(text)
        for name, script in commands(page):
            bench = f'bench() {{ "{sys.executable}" -m bench "$@"; }}\nset -e\n'
            done = subprocess.run(["bash", "-c", bench + script], cwd=work, capture_output=True, text=True)
            if done.returncode:
                raise BenchError(f"the commands for {name} fail: {done.stderr.strip().splitlines()[-1]}")
            if Path(name).suffix:
                if not Path(work, name).is_file():
                    raise BenchError(f"the commands for {name} make no such file; mend its -o")
                made.append(Path(shutil.copy(Path(work, name), folder / name)))
    return made


def main() -> None:
    """`python -m bench.handbook.pictures FOLDER`."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m bench.handbook.pictures FOLDER")
    if not PAGE.is_file():
        sys.exit(f"there is no {PAGE}: the pictures are made in a checkout of the repository")
    for path in draw(PAGE.read_text(), Path(sys.argv[1])):
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
