# SPDX-License-Identifier: Apache-2.0
"""A GPU bundle of some programs, run on the emulated libraries in a root that holds bash, coreutils and python3 and nothing
else, without network: it works through all sections; and killed at any moment, its reports are complete up to a section.

usage: check_bundle.py REPOSITORY BUILD LIBRARIES PROGRAM...

BUILD: the folder of a build that has the programs, and in emulated_kernels their kernels. Where neither a new user namespace
nor chroot is allowed, the root is replaced by an empty environment whose PATH has these tools alone.
"""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

TOOLS = (
    "bash cat cp cut date dirname env head ls mkdir mktemp mv nproc rm sha256sum sleep sort tail timeout tr true uname wc".split()
)
SECTIONS = "abcdefgh"
#: Moments to kill a run at, as parts of the time that it takes.
MOMENTS = (0.02, 0.15, 0.35, 0.55, 0.75, 0.9)


def link(source, target):
    """The file at another place too, without a copy where that can be."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def link_tree(source, target, leave_out=()):
    """All files below."""
    for folder, folders, files in os.walk(source):
        folders[:] = [name for name in folders if name not in leave_out]
        for name in files:
            link(os.path.realpath(os.path.join(folder, name)), target / os.path.relpath(folder, source) / name)


def libraries_of(program):
    """The shared objects that the loader would take."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    return re.findall(r"(/\S+) \(0x", listed)


class BareRoot:
    """A folder that is `/` to what runs in it, where that is allowed."""

    def __init__(self, folder, repository, bundle, libraries, kernels):
        self.folder, self.libraries = folder, libraries
        objects = set()
        places = {name: shutil.which(name) for name in TOOLS}
        missing = [name for name, place in places.items() if not place]
        if missing:
            sys.exit(f"expected {', '.join(missing)} on PATH")
        places["python3"] = os.path.realpath(sys.executable)
        for name, place in places.items():
            link(os.path.realpath(place), folder / "bin" / name)
            objects.update(libraries_of(place))
        (folder / "usr").mkdir()
        (folder / "usr/bin").symlink_to("../bin")
        standard = sysconfig.get_path("stdlib")
        link_tree(standard, self.at(standard), ("__pycache__", "site-packages", "dist-packages", "test", "idlelib", "ensurepip"))
        for module in Path(standard).glob("lib-dynload/*.so"):
            objects.update(libraries_of(module))
        for place in objects:
            link(os.path.realpath(place), self.at(place))
        # Where they are outside, because the emulated device looks kernels up by what translated them, and from where.
        link_tree(libraries, self.at(libraries))
        link_tree(repository / "tests/emulator", self.at(repository / "tests/emulator"))
        # Programs write there. What other tests are writing at the moment, `<kernel>.<process>.<number>.*`, is left out.
        shutil.copytree(kernels, folder / "kernels", ignore=shutil.ignore_patterns("*.*.*"))
        shutil.copytree(bundle, folder / "bundle")
        for name in ("tmp", "dev"):
            (folder / name).mkdir(exist_ok=True)  # a checkout may lie below
        for name, minor in (("null", 3), ("urandom", 9)):
            try:
                os.mknod(folder / "dev" / name, 0o666 | 0o020000, os.makedev(1, minor))
            except OSError:
                (folder / "dev" / name).touch()
        self.prefix = self.way_in()

    def at(self, place):
        """Where a path of the root lies."""
        return self.folder / str(place).lstrip("/")

    def way_in(self):
        """The command that enters the root, or nothing."""
        ways = (
            ["unshare", "--user", "--map-root-user", "--net", "chroot", str(self.folder)],
            ["unshare", "--net", "chroot", str(self.folder)],
            ["chroot", str(self.folder)],
        )
        for way in ways:
            try:
                if subprocess.run([*way, "/bin/true"], capture_output=True, check=False).returncode == 0:
                    return way
            except OSError:
                continue
        return []

    def start(self, *options):
        """The bundle's run, in a session of its own."""
        root = "" if self.prefix else str(self.folder)
        settings = {
            "PATH": f"{root}/bin",
            "HOME": "/",
            # Programs of a bundle's own build look beside themselves for the libraries that it carries.
            "LD_LIBRARY_PATH": f"{self.libraries}:{root}/tmp/report/programs/lib",
            "EMU_CACHE": f"{root}/kernels",
            "EMU_POISON": "1",
            "EMU_THREADS": "0",
        }
        inside = ["env", "-i", *(f"{name}={value}" for name, value in settings.items())]
        inside += [f"{root}/bin/bash", f"{root}/bundle/run", "--emulated", "--output", f"{root}/tmp/report", *options]
        return subprocess.Popen(
            [*self.prefix, *inside], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd="/"
        )

    @property
    def report(self):
        """The output folder, as seen from outside."""
        return self.folder / "tmp/report"


def kill_session(leader):
    """All that a run has started, by SIGKILL."""
    leader.kill()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader.pid:
                os.kill(int(status.parent.name), signal.SIGKILL)
        except (OSError, IndexError):
            continue
    leader.communicate()


def check_reports(folder):
    """The letters of the sections that both reports have; each of them complete."""
    text = (folder / "report.md").read_text()
    report = json.loads((folder / "report.json").read_text())
    begun = re.findall(r"^## ([a-h])\. ", text, re.M)
    ended = re.findall(r"^_Section ([a-h]): (passed|failed|cut off|left out), \d+ s\._$", text, re.M)
    to_come = re.findall(r"^Not there yet, or never reached: sections ([a-h, ]*)\.$", text, re.M)
    listed = [s["section"] for s in report["sections"]]
    assert begun == [key for key, _ in ended], f"sections without an end: {begun}, {ended}"
    assert "".join(begun) == SECTIONS[: len(begun)], begun
    assert len(listed) <= len(begun) <= len(listed) + 1, f"{listed} in report.json, {begun} in report.md"
    rest = SECTIONS[len(begun) :]
    assert to_come == ([", ".join(rest)] if rest else []), f"{to_come} to come behind {begun}"
    assert report["complete"] == (listed == list(SECTIONS))
    return begun, report


def main(repository, build, libraries, *programs):
    """A whole run, then killed ones."""
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        bundle = work / "bundle"
        packed = subprocess.run(
            [f"{repository}/scripts/gpu_bundle", "--built", build, "--programs", " ".join(programs), "--output", bundle],
            capture_output=True,
            text=True,
            check=False,
        )
        if packed.returncode:
            sys.exit(f"gpu_bundle: status {packed.returncode}\n{packed.stdout}{packed.stderr}")
        (work / "root").mkdir()
        kernels = Path(build) / "emulated_kernels"
        root = BareRoot(work / "root", Path(repository).resolve(), bundle, Path(libraries).resolve(), kernels)
        print("in a root of its own:" if root.prefix else "in an empty environment:", " ".join(root.prefix), flush=True)

        run = root.start("--seconds", "1500")
        start = time.monotonic()
        _, errors = run.communicate()
        seconds = time.monotonic() - start
        sections, report = check_reports(root.report)
        text = (root.report / "report.md").read_text()
        print(text, flush=True)
        assert run.returncode == 0, f"status {run.returncode}\n{errors}"
        assert "".join(sections) == SECTIONS
        states = {s["section"]: s["state"] for s in report["sections"]}
        assert states["b"] == "passed" and "failed" not in states.values(), states
        assert states["e"] == ("passed" if "train_gpt" in programs else "left out"), states
        assert states["d"] == ("passed" if "bench_cuda_step" in programs else "left out"), states
        for name in programs:
            assert not name.startswith("test_") or f"| {name} | passed |" in text, name

        for part in MOMENTS:
            for name in ("report.md", "report.json"):
                (root.report / name).unlink(missing_ok=True)
            run = root.start("--seconds", "1500")
            time.sleep(part * seconds)
            kill_session(run)
            if (root.report / "report.md").exists() and (root.report / "report.json").exists():
                print(f"killed after {part * seconds:.1f} s: sections {''.join(check_reports(root.report)[0]) or 'none'}")
            else:
                print(f"killed after {part * seconds:.1f} s: no report yet")

        refused = root.start("--seconds", "soon")
        _, errors = refused.communicate()
        assert refused.returncode == 2 and "expected a number of seconds behind --seconds, got 'soon'" in errors, errors


main(*sys.argv[1:])
