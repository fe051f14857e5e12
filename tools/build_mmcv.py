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
import sysconfig
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

CONSTRAINTS = Path(__file__).with_name("constraints.txt")
MMCV_VERSION = re.search(r"^onedl-mmcv==(\S+)", CONSTRAINTS.read_text(), re.MULTILINE)[1]  # type: ignore[index]
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
    """Print a line of progress."""
    print(f"[mmcv] {text}", flush=True)


def import_error() -> str:
    """Why ``mmcv._ext`` doesn't import, empty where it does; a fresh interpreter tries, as this one can't undo it."""
    done = subprocess.run([sys.executable, "-c", "import torch, mmcv._ext"], capture_output=True, text=True)
    return last_line(done.stderr) if done.returncode else ""


def last_line(text: str) -> str:
    """Return what a program said last, which is where pip and Python put the error."""
    return (text.strip().splitlines() or ["no message"])[-1]


def pip(*arguments: str, **kwargs) -> subprocess.CompletedProcess:
    """Run this interpreter's pip."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, text=True, **kwargs)


def holds_operators(wheel: Path) -> bool:
    """Whether a wheel of mmcv has the compiled operators; the light one of the public index hasn't."""
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
            sys.exit(f"[mmcv] can't download the sources of onedl-mmcv {MMCV_VERSION}: {last_line(done.stderr)}; "
                     "check the network, then run this again")  # fmt: skip
        return None
    return next(folder.glob("*.whl" if kind == "binary" else "*.tar.gz"), None)


def torch_has_cuda() -> bool:
    """Whether this is a build of torch for CUDA, with or without a GPU at hand."""
    import torch

    return torch.version.cuda is not None


def cuda_build_is_possible() -> bool:
    """Whether this torch has CUDA and a compiler for it is there."""
    from torch.utils.cpp_extension import CUDA_HOME

    return torch_has_cuda() and CUDA_HOME is not None and (Path(CUDA_HOME) / "bin" / "nvcc").exists()


def compiler_with_precompiled_header(folder: Path) -> str:
    """Write the wrapper of the C++ compiler and return its path; a compiler that isn't gcc is used as it is."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if not compiler:
        sys.exit("[mmcv] no C++ compiler found; install g++ (Debian, Ubuntu: apt-get install g++) or set CXX")
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        sys.exit("[mmcv] no Python.h found; install Python's headers (Debian, Ubuntu: apt-get install python3-dev)")
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
    wrapper = compiler_with_precompiled_header(folder / "compiler")
    sdist = download(folder, "source")
    assert sdist is not None
    with tarfile.open(sdist) as archive:
        # The first releases of Python 3.11 don't have the filter yet.
        archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    source = folder / sdist.name.removesuffix(".tar.gz")
    setup = source / "setup.py"
    # The headers of torch need C++20 from 2.12 on and accept it before; mmcv asks for C++17.
    setup.write_text(setup.read_text().replace("-std=c++17", "-std=c++20"))

    cuda = cuda_build_is_possible()
    if torch_has_cuda() and not cuda:
        say("torch has CUDA but there is no nvcc: the operators will run on the CPU only; to train on a GPU, install "
            "the CUDA toolkit, set CUDA_HOME, and run this again after `pip uninstall onedl-mmcv`")  # fmt: skip
    files = len(list((source / "mmcv/ops/csrc/pytorch").glob("*.cpp")))
    files += len(list((source / "mmcv/ops/csrc/pytorch/cpu").glob("*.cpp")))
    if cuda:
        files += len([f for f in (source / "mmcv/ops/csrc/pytorch/cuda").iterdir() if f.suffix in (".cu", ".cpp")])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    jobs = os.environ.get("MAX_JOBS") or str(cores)
    say(f"compiling the operators of mmcv {MMCV_VERSION} {'with CUDA' if cuda else 'for the CPU'}: {files} files on "
        f"{jobs} cores, about {25 // int(jobs) or 1} minutes for the CPU; done once, the wheel is kept")  # fmt: skip
    environment = {
        **os.environ,
        "MMCV_WITH_OPS": "1",
        "FORCE_CUDA": "1" if cuda else "0",
        "MAX_JOBS": jobs,
        "CFLAGS": f"{os.environ.get('CFLAGS', '')} -g0".strip(),
        "CXX": wrapper,
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


def install(wheel: Path) -> str:
    """Install the wheel, then what mmcv needs and isn't there; return why the operators don't import, if so."""
    for how in (["--no-deps", "--force-reinstall"], ["--constraint", str(CONSTRAINTS)]):
        done = pip("install", "--quiet", *how, str(wheel), capture_output=True)
        if done.returncode:
            sys.exit(f"[mmcv] can't install {wheel.name}: {last_line(done.stderr)}")
    return import_error()


def main() -> None:
    """Do the first of the four that works."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    if not import_error():
        say("operators are there, nothing to build")
        return
    cached = cache_folder()
    for wheel in cached.glob("*.whl"):
        reason = install(wheel)
        if not reason:
            say("operators installed from the wheel built before")
            return
        say(f"the wheel in {cached} doesn't load here and will be replaced: {reason}")
    with tempfile.TemporaryDirectory(prefix="mmcv-") as name:
        folder = Path(name)
        wheel = download(folder, "binary")
        if wheel is not None and holds_operators(wheel) and not install(wheel):
            say("operators installed from the package index")
            return
        wheel = build(folder)
        cached.mkdir(parents=True, exist_ok=True)
        for old in cached.glob("*.whl"):
            old.unlink()
        kept = Path(shutil.move(str(wheel), cached / f"{wheel.name}.part"))
        kept = kept.rename(cached / wheel.name)
    reason = install(kept)
    if reason:
        sys.exit(f"[mmcv] {kept} was built but its operators don't import: {reason}")
    say(f"operators built, the wheel is kept in {cached}")


if __name__ == "__main__":
    main()
