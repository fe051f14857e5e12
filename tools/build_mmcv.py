#!/usr/bin/env python
"""Install onedl-mmcv with its compiled operators into the running Python; build them only where nothing is ready.

    python tools/build_mmcv.py            # needs torch in the same environment; stdlib only besides

In this order: operators that already import; a wheel that this machine built before; a wheel of the user's package
index that holds operators; a build from the source distribution, kept in the user's cache folder for the next
environment.  The cache is ``$VISDET_ASSIGNERS_CACHE``, else ``$XDG_CACHE_HOME/visdet_assigners``, else
``~/.cache/visdet_assigners``; a folder in it is keyed by the versions of mmcv, torch and Python and by the machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

MMCV_VERSION = "2.3.6"
# Built on the side of the final file and moved, so that two compilers that start at once never read half a header.
COMPILER_WRAPPER = """\
#!/usr/bin/env bash
# The C++ compiler with torch/extension.h precompiled once: the headers of torch are most of the work of each file.
flags=() ; source= ; skip=
for a in "$@"; do
  if [ -n "$skip" ]; then skip=; continue; fi
  case "$a" in
    -c) compile=1 ;;
    -o|-MF) skip=1 ;;
    -MMD) ;;
    *.cpp) source=$a ;;
    *) flags+=("$a") ;;
  esac
done
[ -n "$compile" ] && [ -n "$source" ] || exec {compiler} "$@"
header={folder}/precompiled.h
if mkdir {folder}/lock 2>/dev/null; then
  {compiler} "${{flags[@]}}" -x c++-header "$header" -o "$header.tmp" && mv "$header.tmp" "$header.gch"
  touch {folder}/tried
fi
while [ ! -e {folder}/tried ]; do sleep 0.5; done
exec {compiler} -include "$header" "$@"
"""


def say(text: str) -> None:
    print(f"[mmcv] {text}", flush=True)


def operators_work() -> bool:
    """Whether ``mmcv._ext`` imports, asked in a fresh interpreter (an import can't be undone in this one)."""
    code = "import torch, mmcv._ext"
    return subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def pip(*arguments: str, **kwargs) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, text=True, **kwargs)


def holds_operators(wheel: Path) -> bool:
    with zipfile.ZipFile(wheel) as archive:
        return any(re.match(r"mmcv/_ext.*\.(so|pyd)$", name) for name in archive.namelist())


def cache_folder() -> Path:
    """The folder that holds the wheel for this mmcv, torch, Python and machine."""
    import torch

    root = os.environ.get("VISDET_ASSIGNERS_CACHE")
    if not root:
        root = str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "visdet_assigners")
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    return Path(root) / f"mmcv-{MMCV_VERSION}-torch-{torch.__version__}-{python}-{platform.machine()}"


def download(folder: Path, kind: str) -> Path | None:
    """Fetch the wheel (``kind='binary'``) or the source distribution (``kind='source'``) without its dependencies."""
    only = ["--only-binary=:all:"] if kind == "binary" else ["--no-binary=:all:", "--no-build-isolation"]
    done = pip("download", "--quiet", "--no-deps", *only, f"onedl-mmcv=={MMCV_VERSION}", "--dest", str(folder),
               capture_output=True)  # fmt: skip
    if done.returncode:
        if kind == "source":
            sys.exit(f"[mmcv] can't download the source distribution of onedl-mmcv {MMCV_VERSION}:\n{done.stderr}")
        return None
    return next(folder.glob("*.whl" if kind == "binary" else "*.tar.gz"), None)


def cuda_build_is_possible() -> bool:
    """Whether this torch has CUDA and a compiler for it is there."""
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    return torch.version.cuda is not None and CUDA_HOME is not None and (Path(CUDA_HOME) / "bin" / "nvcc").exists()


def compiler_with_precompiled_header(folder: Path) -> str:
    """Write the wrapper of the C++ compiler and return its path; a compiler that isn't gcc is used as it is."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if not compiler:
        sys.exit("[mmcv] no C++ compiler found; install g++ (Debian, Ubuntu: apt-get install g++) or set CXX")
    version = subprocess.run([*compiler.split(), "--version"], capture_output=True, text=True).stdout
    if "Free Software Foundation" not in version:
        return compiler
    folder.mkdir()
    (folder / "precompiled.h").write_text("#include <torch/extension.h>\n")
    wrapper = folder / "c++"
    wrapper.write_text(COMPILER_WRAPPER.format(compiler=compiler, folder=folder))
    wrapper.chmod(0o755)
    return str(wrapper)


def build(folder: Path) -> Path:
    """Compile the source distribution into a wheel and return its path."""
    sdist = download(folder, "source")
    assert sdist is not None
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    source = folder / sdist.name.removesuffix(".tar.gz")
    setup = source / "setup.py"
    # The headers of torch need C++20 from 2.12 on and accept it before; mmcv asks for C++17.
    setup.write_text(setup.read_text().replace("-std=c++17", "-std=c++20"))

    cuda = cuda_build_is_possible()
    files = len(list((source / "mmcv/ops/csrc/pytorch").glob("*.cpp")))
    files += len(list((source / "mmcv/ops/csrc/pytorch/cpu").glob("*.cpp")))
    if cuda:
        files += len([f for f in (source / "mmcv/ops/csrc/pytorch/cuda").iterdir() if f.suffix in (".cu", ".cpp")])
    jobs = os.environ.get("MAX_JOBS") or str(len(os.sched_getaffinity(0)))
    say(f"compiling the operators of mmcv {MMCV_VERSION} {'with CUDA' if cuda else 'for the CPU'}: {files} files on "
        f"{jobs} cores, about {25 // int(jobs) or 1} minutes for the CPU; done once, the wheel is kept")  # fmt: skip
    environment = {
        **os.environ,
        "MMCV_WITH_OPS": "1",
        "FORCE_CUDA": "1" if cuda else "0",
        "MAX_JOBS": jobs,
        "CFLAGS": f"{os.environ.get('CFLAGS', '')} -g0".strip(),
        "CXX": compiler_with_precompiled_header(folder / "compiler"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    log = folder / "build.log"
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--verbose",
               "--wheel-dir", str(folder / "built"), str(source)]  # fmt: skip
    start = time.monotonic()
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
        shown = -1
        while process.poll() is None:
            time.sleep(1)
            done = sum(1 for _ in source.glob("build/temp*/**/*.o"))
            if done != shown:
                shown = done
                minutes, seconds = divmod(int(time.monotonic() - start), 60)
                line = f"[mmcv] {done:3d} of {files} files, {minutes}:{seconds:02d}"
                print(f"\r{line}" if sys.stdout.isatty() else line, end="" if sys.stdout.isatty() else "\n", flush=True)
    print(flush=True)
    if process.returncode:
        kept = Path(tempfile.gettempdir()) / "mmcv_build.log"
        shutil.copy(log, kept)
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
        sys.exit(f"{tail}\n[mmcv] the build failed; its end stands above, the whole log in {kept}")
    return next((folder / "built").glob("*.whl"))


def install(wheel: Path) -> bool:
    done = pip("install", "--quiet", "--no-deps", "--force-reinstall", str(wheel))
    return done.returncode == 0 and operators_work()


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    if operators_work():
        say("operators are there, nothing to build")
        return
    cached = cache_folder()
    for wheel in cached.glob("*.whl"):
        if install(wheel):
            say("operators installed from the wheel built before")
            return
        say(f"the wheel in {cached} doesn't load here; it will be replaced")
    with tempfile.TemporaryDirectory(prefix="mmcv-") as name:
        folder = Path(name)
        wheel = download(folder, "binary")
        if wheel is not None and holds_operators(wheel) and install(wheel):
            say("operators installed from the package index")
            return
        wheel = build(folder)
        cached.mkdir(parents=True, exist_ok=True)
        for old in cached.glob("*.whl"):
            old.unlink()
        kept = Path(shutil.move(str(wheel), cached / f"{wheel.name}.part"))
        kept = kept.rename(cached / wheel.name)
    if not install(kept):
        sys.exit(f"[mmcv] {kept} was built but mmcv._ext doesn't import; try: python -c 'import torch, mmcv._ext'")
    say(f"operators built, the wheel is kept in {cached}")


if __name__ == "__main__":
    main()
