"""The tables of docs/scale.md are those that the script prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_tables_are_those_of_the_script() -> None:
    script = ROOT / "benchmarks" / "scale_on_paper.py"
    printed = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=True
    )
    text = (ROOT / "docs" / "scale.md").read_text()
    assert text.partition("## The tables\n\n")[2] == printed.stdout
