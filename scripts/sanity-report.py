#!/usr/bin/env python3
"""Holds a suite's JUnit report against a list of the tests that do not run, such as tests/sanity-skips.txt.

sanity-report.py ask SKIPS                   prints the expressions that the suite is asked to skip
sanity-report.py check SKIPS REPORT [TEXT]   prints a summary; exit 1 if a test failed, if one was skipped that the list
                                             does not have, or if the list has a line that nothing was skipped for;
                                             with TEXT, only of tests that have it in their names
"""

import re
import sys
import xml.etree.ElementTree as ElementTree


def read_skips(path):
    """Yields (kind, compiled expression, reason)."""
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            # An expression may hold a bar itself: the kind is before the first " | ", the reason after the last.
            kind, _, rest = line.partition(" | ")
            expression, _, reason = rest.rpartition(" | ")
            if kind.strip() not in ("suite", "ask") or not expression.strip() or not reason.strip():
                sys.exit(f"{path}:{number}: expected: suite|ask | expression | reason")
            yield kind.strip(), re.compile(expression.strip()), reason.strip()


def read_report(path):
    """Yields (name, status, message) of every test; the suite's own set-up steps are no tests."""
    for case in ElementTree.parse(path).iter("testcase"):
        name = case.get("name", "")
        if not name.startswith("[It] "):
            continue
        message = next((child.get("message") or "" for child in case if child.tag in ("failure", "error", "skipped")), "")
        yield name[len("[It] "):], case.get("status"), message.removeprefix("skipped - ")


def service(name):
    """What a test is about: its group in csi-sanity, its test suite in Kubernetes."""
    pattern = re.search(r"\[Testpattern: ([^]]*)\] (\S+)", name)
    if pattern:
        return f"{pattern[2]}, {pattern[1]}"
    return name.split(" [")[0] if " [" in name else " ".join(name.split()[:2])


def check(skips_path, report_path, text=""):
    skips = list(read_skips(skips_path))
    report = [test for test in read_report(report_path) if text in test[0]]
    used = set()
    passed, failed, unexpected = [], [], []
    for name, status, message in report:
        if status == "passed":
            passed.append(name)
        elif status in ("skipped", "pending"):
            matches = [index for index, (_, expression, _) in enumerate(skips) if expression.search(name)]
            used.update(matches)
            if not matches:
                unexpected.append((name, message))
        else:
            failed.append((name, message))
    skipped = sum(1 for _, status, _ in report if status in ("skipped", "pending"))
    # After a failure much more is skipped or not reached: then only the failure counts.
    stale = [] if failed else [expression.pattern for index, (_, expression, _) in enumerate(skips) if index not in used]

    services = {}
    for name in passed:
        services[service(name)] = services.get(service(name), 0) + 1
    for about, count in sorted(services.items()):
        print(f"  {about}: {count} passed")
    for name, message in failed:
        # The suite's "Unexpected error" has the error itself some lines further down.
        text = " ".join(line.strip() for line in message.splitlines())
        print(f"  FAILED {name}\n         {text[:200]}")
    for name, message in unexpected:
        print(f"  SKIPPED, and not in {skips_path}: {name} ({message})")
    for pattern in stale:
        print(f"  nothing was skipped for this line of {skips_path}: {pattern}")
    problems = len(failed) + len(unexpected) + len(stale)
    if not passed:
        print("  no test ran")
        problems += 1
    result = "FAILED" if problems else "ok"
    print(f"test result: {result}. {len(passed)} passed; {problems} failed; {skipped} ignored; 0 measured; 0 filtered out")
    return 1 if problems else 0


def main(arguments):
    if len(arguments) == 2 and arguments[0] == "ask":
        for kind, expression, _ in read_skips(arguments[1]):
            if kind == "ask":
                print(expression.pattern)
        return 0
    if len(arguments) in (3, 4) and arguments[0] == "check":
        return check(*arguments[1:])
    sys.exit(__doc__)


sys.exit(main(sys.argv[1:]))
