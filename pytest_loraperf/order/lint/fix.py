"""``--fix``: moving an operation below the one that must come first, where that is safe."""

from __future__ import annotations

import ast
import io
import tokenize
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from pytest_loraperf.order.lint.findings import Finding
from pytest_loraperf.order.lint.run import lint_source
from pytest_loraperf.order.lint.source import read

MAX_MOVES = 50
_SWAPPABLE = frozenset({"LRP101", "LRP102", "LRP105", "LRP106", "LRP109"})


def fix_file(path: Path, codes: Collection[str]) -> int:
    """Fix what can be fixed in a file; return how many findings that removed.

    The file's encoding and line endings stay as they are; one that cannot be read is left alone.
    """
    text = read(path)
    if isinstance(text, Finding):
        return 0
    before = lint_source(text, str(path), codes)
    fixed = fix_source(text, str(path), codes)
    if fixed == text:
        return 0
    content = path.read_bytes()
    newline = "\r\n" if b"\r\n" in content else "\n"
    path.write_text(fixed, encoding=_encoding(content), newline=newline)
    return len(before) - len(lint_source(fixed, str(path), codes))


def fix_source(source: str, path: str, codes: Collection[str]) -> str:
    """Return the source with operations moved, as long as each move leaves fewer findings and no new kind.

    Only whole statements on lines of their own are moved, within one block, past statements that are
    operations themselves: nothing else runs in another order than before.
    """
    for _ in range(MAX_MOVES):
        moved = _moved_once(source, path, codes)
        if moved is None:
            break
        source = moved
    return source


def _moved_once(source: str, path: str, codes: Collection[str]) -> str | None:
    findings = lint_source(source, path, codes)
    count = Counter(each.code for each in findings)
    for candidate in _candidates(source, findings):
        after = Counter(each.code for each in lint_source(candidate, path, codes))
        if after < count:
            return candidate
    return None


def _candidates(source: str, findings: list[Finding]) -> Iterator[str]:
    """Yield sources in which the earlier of two operations stands below the later one."""
    movable = [each for each in findings if each.code in _SWAPPABLE and each.earlier is not None]
    if not movable:
        return
    blocks = [block for node in ast.walk(ast.parse(source)) for block in _blocks(node)]
    for finding in reversed(movable):
        earlier = finding.earlier.line if finding.earlier is not None else 0
        for block in blocks:
            first = next((i for i, each in enumerate(block) if _spans(each, earlier)), len(block))
            last = next((i for i, each in enumerate(block) if _spans(each, finding.line)), -1)
            if first < last and all(_is_movable(each, source) for each in block[first : last + 1]):
                yield _move(source, block[first], block[last])


def _blocks(node: ast.AST) -> Iterator[list[ast.stmt]]:
    for name in ("body", "orelse", "finalbody"):
        block = getattr(node, name, None)
        if isinstance(block, list):
            yield block


def _spans(node: ast.stmt, line: int) -> bool:
    return node.lineno <= line <= (node.end_lineno or node.lineno)


def _is_movable(node: ast.stmt, source: str) -> bool:
    """Return whether this is a call by itself, on lines that nothing else stands on, binding no name."""
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Call):
        return False
    if any(isinstance(each, ast.NamedExpr | ast.Await | ast.Yield | ast.YieldFrom) for each in ast.walk(node)):
        return False
    if not isinstance(node.value.func, ast.Attribute | ast.Name):
        return False
    lines = source.split("\n")
    before = lines[node.lineno - 1].encode()[: node.col_offset]
    after = lines[(node.end_lineno or 0) - 1].encode()[node.end_col_offset :].decode().strip()
    return not before.strip() and (not after or after.startswith("#"))


def _move(source: str, first: ast.stmt, last: ast.stmt) -> str:
    lines = source.split("\n")
    start, end, target = first.lineno - 1, first.end_lineno or first.lineno, last.end_lineno or last.lineno
    return "\n".join([*lines[:start], *lines[end:target], *lines[start:end], *lines[target:]])


def _encoding(content: bytes) -> str:
    return tokenize.detect_encoding(io.BytesIO(content).readline)[0]
