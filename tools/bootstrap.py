#!/usr/bin/env python3
"""Put libtorch 2.11.0, which the trainer links, into `.libtorch/` beside this repository.

Three ways, the cheapest that works is taken:

  link    this Python already has torch 2.11.0: `.libtorch/` gets links to it (no download)
  light   fetch three wheels and unpack only what a CPU trainer needs (about 545 MB down, 505 MB kept)
  cuda    with --cuda: a full torch in `.libtorch/venv`, and links to it (about 2.7 GB down, 4.7 GB kept)

Besides, `.libtorch/cuda` gets the CUDA header files that the shim for GPUs is compiled with (0.2 MB down; no GPU needed), and
with --nvrtc the compiler of its kernels (90 MB down), which a full torch has already and the tests of the kernels want.

The folder mimics site-packages (`torch/lib`, `torch/include`, `nvidia`), because libtorch finds its own
libraries relative to where it lies. `torch/lib` holds only the CPU libraries; torch's build glue also asks for
a `libtorch.so`, which is an empty shared object made here. CUDA libraries are opened at run time, never linked.

Needs Python 3.8 or newer with pip (or the venv module), and a C compiler. Nothing outside `.libtorch/` changes.
"""

import argparse
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

TORCH = "2.11.0"
# libtorch_cpu needs the CUDA run-time and profiling libraries even where there is no GPU.
LIGHT = ["torch==" + TORCH, "nvidia-cuda-runtime==13.0.96", "nvidia-cuda-cupti==13.0.85"]
# What torch's own CUDA headers include and no package that torch needs brings; and the compiler that torch 2.11.0 comes with.
CUDA_HEADERS, NVRTC = "nvidia-cuda-crt==13.0.88", "nvidia-cuda-nvrtc==13.0.88"
# The C++ parts are the same in every wheel of a version, so one Python tag serves any local Python.
WHEEL_PYTHON = "3.12"
PLATFORMS = ["manylinux_2_%d_x86_64" % glibc for glibc in (28, 27, 26, 25, 24, 17)]
LIBRARIES = ["libtorch_cpu.so", "libc10.so", "libgomp.so.1"]
LAYOUT = "1"  # raise when the layout of `.libtorch/` changes, so that old ones are made anew

HOME = Path(__file__).resolve().parent.parent / ".libtorch"
STAMP = HOME / "stamp"  # written last: its presence means the folder is complete


class Failure(Exception):
    """What went wrong, and what to do about it."""

    def __init__(self, message, hint=None):
        super().__init__(message)
        self.hint = hint


def say(text):
    print("bootstrap: " + text, flush=True)


def megabytes(n):
    return "%.0f MB" % (n / 1e6)


def run(command, purpose):
    """Run a command, whose own messages go to the terminal; on failure say what it was for."""
    try:
        status = subprocess.run([str(word) for word in command]).returncode
    except OSError as error:
        raise Failure("%s: %s" % (purpose, error))
    if status != 0:
        raise Failure("%s: %s ended with status %d" % (purpose, Path(str(command[0])).name, status))


# --- what is there already ---------------------------------------------------------------------------------


def version_of(torch):
    """The version of the torch folder, without its local part (`2.11.0+cu130` is `2.11.0`), or None."""
    for name in ("version.py", "build-version"):
        try:
            lines = (torch / name).read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            key, _, value = line.partition("=") if name == "version.py" else ("__version__", "", line)
            if key.strip() == "__version__":
                return value.strip().strip("'\"").split("+")[0]
    return None


def missing_from(torch):
    """The first thing a build or a run would miss in the torch folder, or None."""
    libraries = ["lib/" + name for name in LIBRARIES[:2] + ["libtorch.so"]]
    for name in ["include/torch/csrc/api/include/torch/torch.h"] + libraries:
        if not (torch / name).exists():
            return torch / name
    return None


def stamped():
    """How `.libtorch/` was made ("light", "link FOLDER", "cuda FOLDER"), or None if it is absent or incomplete."""
    try:
        version, layout, way = STAMP.read_text().split(None, 2)
    except (OSError, ValueError):
        return None
    complete = version == TORCH and layout == LAYOUT and missing_from(HOME / "torch") is None
    return way.strip() if complete else None


def installed_site():
    """The site-packages folder whose torch is the version we need, or None. Nothing is imported."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return None
    torch = Path(list(spec.submodule_search_locations)[0])
    found = version_of(torch)
    if found != TORCH:
        say("the torch of this Python is %s; the trainer needs %s, so it is not used" % (found, TORCH))
        return None
    return torch.parent


def check_users_libtorch(torch):
    """The user chose a libtorch: check it and leave it alone."""
    missing = missing_from(torch)
    if missing:
        raise Failure("LIBTORCH=%s lacks %s" % (torch, missing), "unset LIBTORCH to let this script make .libtorch/")
    found = version_of(torch)
    if found not in (TORCH, None):
        problem = "LIBTORCH=%s is version %s, expected %s" % (torch, found, TORCH)
        raise Failure(problem, "unset LIBTORCH, or point it elsewhere")
    say("using your LIBTORCH, %s (%s)" % (torch, found or "version not recorded there"))


# --- the three ways ----------------------------------------------------------------------------------------


def pip_command():
    """A command that runs pip: this Python's, else one in a small virtual environment of our own."""
    own = [sys.executable, "-m", "pip"]
    if subprocess.run(own + ["--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0:
        return own
    say("this Python has no pip; making one in .libtorch/pip")
    return [make_venv(HOME / "pip"), "-m", "pip"]


def make_venv(folder):
    """Make a virtual environment and return its Python."""
    try:
        run([sys.executable, "-m", "venv", "--clear", folder], "cannot make a virtual environment")
    except Failure as error:
        raise Failure(str(error), "install pip or venv; on Debian and Ubuntu: apt install python3-pip python3-venv")
    return folder / "bin" / "python"


def wanted(name):
    """Whether a light install keeps this member of a wheel."""
    nvidia = "/include/" in name or name.endswith(("/libcudart.so.13", "/libcupti.so.13"))
    return (
        name == "torch/version.py"
        or name in ["torch/lib/" + lib for lib in LIBRARIES]
        or name.startswith("torch/include/")
        or (name.startswith("nvidia/") and nvidia)
        or "LICENSE" in name.upper()
        or "NOTICE" in name.upper()
    )


def download(packages, into, keep):
    """Download wheels and unpack the members that `keep` wants into a folder; returns the bytes downloaded."""
    wheels = into / "wheels"
    command = pip_command() + ["download", "--quiet", "--disable-pip-version-check", "--no-cache-dir", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version", WHEEL_PYTHON, "--dest", wheels]
    for tag in PLATFORMS:
        command += ["--platform", tag]
    say("fetching " + ", ".join(packages))
    run(command + packages, "cannot download " + ", ".join(packages))
    size = 0
    for wheel in sorted(wheels.glob("*.whl")):
        size += wheel.stat().st_size
        with zipfile.ZipFile(str(wheel)) as archive:
            archive.extractall(str(into), [name for name in archive.namelist() if keep(name)])
    shutil.rmtree(str(wheels))
    return size


def add_cuda(nvrtc):
    """Bring `.libtorch/cuda` up to date: header files, and the kernels' compiler if it is asked for."""
    home = HOME / "cuda"
    headers = any((HOME / place / "nvidia/cu13/include/crt/host_defines.h").exists() for place in ("", "cuda"))
    if not headers:
        try:
            download([CUDA_HEADERS], home, lambda name: "/include/" in name or "LICENSE" in name.upper())
        except Failure as failure:
            say("without CUDA's header files the trainer is built without its GPU engine (%s)" % failure)
    library = "nvidia/cu13/lib/libnvrtc.so.13"
    if nvrtc and not any((HOME / place / library).exists() for place in ("", "cuda")):
        names = (library, "nvidia/cu13/lib/libnvrtc-builtins.so.13.0")
        download([NVRTC], home, lambda name: name in names or "LICENSE" in name.upper())


def link_to(site, new):
    """Fill `new` with links into a site-packages folder that has torch."""
    (new / "torch" / "lib").mkdir(parents=True)
    for lib in LIBRARIES:
        if (site / "torch/lib" / lib).exists():
            (new / "torch/lib" / lib).symlink_to(site / "torch/lib" / lib)
    for name in ("include", "version.py"):
        (new / "torch" / name).symlink_to(site / "torch" / name)
    (new / "nvidia").symlink_to(site / "nvidia")


def install_full():
    """Install all of torch into a virtual environment; returns its site-packages folder."""
    python = make_venv(HOME / "venv")
    say("installing the full torch==%s with its CUDA libraries (about 2.7 GB)" % TORCH)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "torch==" + TORCH]
    run(install, "cannot install torch")
    return next((HOME / "venv" / "lib").glob("python3*")) / "site-packages"


def c_compiler():
    """A C compiler; asked for before anything is downloaded."""
    found = [c for c in (os.environ.get("CC"), "cc", "gcc", "clang") if c and shutil.which(c)]
    if not found:
        raise Failure("no C compiler found", "install one; on Debian and Ubuntu: apt install g++")
    return found[0]


def write_stub(lib, compiler):
    """Write the empty `libtorch.so` that torch's build glue links and nothing uses."""
    source = lib / "stub.c"
    source.write_text("void curate_libtorch_stub(void) {}\n")
    flags = ["-shared", "-fPIC", "-nostdlib", "-Wl,-soname,libtorch.so"]
    run([compiler] + flags + ["-o", lib / "libtorch.so", source], "cannot make the empty libtorch.so")
    source.unlink()


def make(cuda, use_installed):
    """Make `.libtorch/`: aside first, then renamed into place, the stamp last."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        hint = "set LIBTORCH to a libtorch %s built for this machine" % TORCH
        raise Failure("this script knows Linux x86_64 only, not %s %s" % (platform.system(), platform.machine()), hint)
    start, size, compiler = time.monotonic(), 0, c_compiler()
    HOME.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="new-", dir=str(HOME)) as folder:
        new = Path(folder)
        site = installed_site() if use_installed else None
        if cuda and not (site and (site / "torch/lib/libtorch_cuda.so").exists()):
            site = install_full()
        if site:
            link_to(site, new)
        else:
            size = download(LIGHT, new, wanted)
        write_stub(new / "torch" / "lib", compiler)
        missing = missing_from(new / "torch")
        if missing:
            raise Failure("%s is missing: this torch is packed otherwise than expected" % missing.relative_to(new))
        if STAMP.exists():
            STAMP.unlink()
        for part in sorted(new.iterdir()):
            discard(HOME / part.name)
            part.rename(HOME / part.name)
    way = "%s %s" % ("cuda" if cuda else "link", site) if site else "light"
    STAMP.write_text("%s %s %s\n" % (TORCH, LAYOUT, way))
    discard(HOME / "pip")
    if not (site and (HOME / "venv") in site.parents):
        discard(HOME / "venv")
    kept = sum(f.stat().st_size for f in HOME.rglob("*") if f.is_file() and not f.is_symlink())
    fetched = megabytes(size) + " downloaded, " if size else ""
    say("done (%s): %s%s on disk, %.0f s" % (way, fetched, megabytes(kept), time.monotonic() - start))


def discard(path):
    """Remove a link or a folder if it is there."""
    if path.is_symlink():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(str(path))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuda", action="store_true", help="get a torch that can use a GPU")
    parser.add_argument("--light", action="store_true", help="fetch the CPU set even if this Python has torch")
    parser.add_argument("--nvrtc", action="store_true", help="fetch the compiler of the GPU kernels, too")
    parser.add_argument("--force", action="store_true", help="make .libtorch/ anew though it is complete")
    parser.add_argument("--check", action="store_true", help="only say what is there; exit 1 if nothing usable is")
    options = parser.parse_args()
    if options.cuda and options.light:
        parser.error("--cuda and --light exclude each other")

    # Cargo sets LIBTORCH to our own folder (.cargo/config.toml); only another value is the user's.
    users = os.environ.get("LIBTORCH")
    if users and Path(users).absolute() != HOME / "torch":
        return check_users_libtorch(Path(users))
    way = stamped()
    if options.check:
        if way is None:
            raise Failure("no usable libtorch %s in %s" % (TORCH, HOME), "python3 tools/bootstrap.py")
        return say("libtorch %s is ready (%s)" % (TORCH, way))
    cuda_library = (HOME / "torch/lib/libtorch_cpu.so").resolve().with_name("libtorch_cuda.so")
    suits = (cuda_library.exists() or not options.cuda) and (way == "light" or not options.light)
    if way is None or not suits or options.force:
        make(options.cuda, use_installed=not options.light)
    else:
        say("libtorch %s is ready (%s)" % (TORCH, way))
    add_cuda(options.nvrtc)


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        print("error: %s" % failure, file=sys.stderr)
        if failure.hint:
            print("hint: " + failure.hint, file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
