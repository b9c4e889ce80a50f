"""Byte code for the device's Pythons, made by each of them: nothing is compiled, nor written, on the device.

The files are hash-based and unchecked (PEP 552): valid whatever the time stamps are that dpkg, rpm or a backup gave.
They are without the docstrings of functions and classes, which nothing on a device reads and every process would hold
in memory; assertions stay, and so do the docstrings of modules, which are help texts here and there.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

COMPILER = """
import ast, importlib._bootstrap_external as external, importlib.util, io, sys, tarfile
root = sys.argv[1]
def bare(source):
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and ast.get_docstring(node, False):
            node.body[:1] = [] if len(node.body) > 1 else [ast.copy_location(ast.Pass(), node.body[0])]
    return tree
given = tarfile.open(fileobj=sys.stdin.buffer, mode="r|")
with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as out:
    for member in given:
        source = given.extractfile(member).read()
        code = compile(bare(source), f"{root}/{member.name}", "exec", dont_inherit=True, optimize=0)
        data = external._code_to_hash_pyc(code, importlib.util.source_hash(source), False)
        made = tarfile.TarInfo(importlib.util.cache_from_source(member.name, optimization=""))
        made.size = len(data)
        out.addfile(made, io.BytesIO(data))
"""
"""Reads a tar of sources, writes a tar of byte code.

The code object's file name is the path on the device, for tracebacks. _code_to_hash_pyc is what py_compile calls.
"""


class CompileError(Exception):
    """An interpreter could not compile; the text is for people."""


def compile_all(directory: Path, root: str, python: Sequence[str]) -> int:
    """Byte code of every source below ``directory``, which is ``root`` on the device, by the command ``python``.

    Returns how many files there are. Raises CompileError.
    """
    sources = sorted(directory.rglob("*.py"))
    given = io.BytesIO()
    with tarfile.open(fileobj=given, mode="w") as archive:
        for path in sources:
            member = tarfile.TarInfo(str(path.relative_to(directory)))
            content = path.read_bytes()
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    # The order of a set in a constant follows the seed of hashes: the same bytes from every build need one seed.
    argv = [*python, "-S", "-s", "-B", "-c", COMPILER, root]
    environment = {"PYTHONHASHSEED": "0", "LANG": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    done = subprocess.run(argv, input=given.getvalue(), capture_output=True, env=environment)
    if done.returncode != 0:
        raise CompileError(f"cannot compile for {python[0]}: {done.stderr.decode(errors='replace').strip()[-1500:]}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        for member in archive:
            path, made = directory / member.name, archive.extractfile(member)
            if made is not None:
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(made.read())
    return len(sources)
