"""A hundredth of what `make fuzz` does, from a fixed seed, and that it finds what it looks for."""

from __future__ import annotations

from pathlib import Path

import pytest

import fuzz
from alexlab.errors import UserError
from fuzz import Kind, run_case

CASES = 100


@pytest.mark.slow
def test_a_hundredth(capfd: pytest.CaptureFixture[str]):
    assert fuzz.main(["--cases", str(CASES), "--seed", "0"]) == 0, capfd.readouterr().out


class TestItFinds:
    """Each in a process of its own, since an audit hook stays."""

    def wrong(self, body: str, tmp_path: Path) -> str:
        import subprocess
        import sys

        code = (
            f"import sys, os; sys.path.insert(0, {str(Path(fuzz.__file__).parent)!r})\n"
            "from pathlib import Path; import fuzz\n"
            f"def read(folder):\n    {body}\n"
            "sys.addaudithook(fuzz._watch); fuzz.SECONDS = 0.5; fuzz.MAX_BYTES = 3e8\n"
            "kind = fuzz.Kind(lambda folder: None, read, (KeyError,), seed={'x.json': b'{\"a\": 1}'})\n"
            f"print(fuzz.run_case(kind, 'x', 0, 0, Path({str(tmp_path / 'case')!r})))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        return done.stdout.strip() or done.stderr[-300:]

    @pytest.mark.parametrize(
        ("body", "found"),
        [
            ("pass", ""),
            ("raise KeyError('documented')", ""),
            ("raise KeyError", "an error without words"),
            ("raise TypeError('x')", "TypeError: 'x'"),
            ("while True: pass", "more than 0.5 s"),
            ("open(folder / 'inside', 'w')", ""),
            ("open(folder / '../outside', 'w')", "outside of its folder: open"),
            ("(folder / '../elsewhere').mkdir()", "outside of its folder: os.mkdir"),
            ("os.system('true')", "outside of its folder: os.system"),
            ("bytearray(4 * 10**8)[::4096] = b'x' * 97657", "0."),
        ],
    )
    def test_what_is_wrong(self, tmp_path: Path, body: str, found: str):
        told = self.wrong(body, tmp_path)
        assert told[: len(found) or None] == found
        assert not (tmp_path / "outside").exists()


def test_a_case_is_the_same_every_time(tmp_path: Path):
    seen: list[bytes] = []
    seed = {"a.json": b'{"a": [1, 2, {"b": "c"}]}', "b.tar": bytes(2048)}
    kind = Kind(
        lambda folder: None,
        lambda folder: seen.append((folder / "a.json").read_bytes()),
        (UserError,),
        r".*json",
        seed,
    )
    for _ in range(2):
        run_case(kind, "x", 3, 7, tmp_path / "case")
    assert seen[0] == seen[1] != seed["a.json"]
