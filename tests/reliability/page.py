"""The table of faults as a page: ``PYTHONPATH=tests python -m reliability.page`` writes it."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import torch

from reliability.faults import FAULTS, REPLACED, Fault
from reliability.subjects import COSTS, SUBJECTS, Subject
from reliability.trials import Outcome, worst_of_all_ways

PAGE = Path(__file__).with_name("README.md")
GROUPS = dict(
    A="Cardinality", B="Not finite", C="Geometry", D="Labels", E="Types, shapes, devices", F="Ignore regions",
    G="Configuration", H="Scale",
)  # fmt: skip
SECTIONS = (
    "Totals",
    *(f"{letter}. {name}" for letter, name in GROUPS.items()),
    "What `on_nonfinite='replace'` makes of them",
    "Match costs",
)
INTRODUCTION = """# Bad and extreme input: every kind, every assigner

With this page you can look up what an assigner, ours or mmdet's, makes of an input that is not as it should be.

Contents: {contents}

What becomes of {kinds} kinds of bad or extreme input in each assigner and match cost. Written by
`PYTHONPATH=tests python -m reliability.page`; `pytest tests/reliability` tries everything again and fails where this
page says something else. The faults are in `faults.py`, what counts as right in `judges.py`, how a call is judged in
`trials.py`.

Each cell is the worst of all ways of calling, on a CPU and as on a device, there with `on_nonfinite='raise'`: `assign`,
`assign_batch`, the function of the rule where there is one (`visdet_assigners.atss(...)`), and AscendMaxIoU's padded
batch; see `ways.py`.

| letter | meaning |
|---|---|
| R | the right answer: mmdet's where mmdet is right, that of the clean or widened input, or as without the bad object |
| E | an error that names the assigner, the field, the image and, where there is one, the place and the value |
| K | mmdet's documented behaviour, kept: its result, with one warning where the input was probably not meant so |
| X | an error that names nothing |
| W | silently wrong |
| O | more than 1 GiB beyond the inputs |
| - | doesn't apply |

mmdet's letters, in the second place of each pair, are those of mmdet 3.5.1 (onedl-mmdetection; 2.28.2 for
AscendMaxIoU), found with torch 2.13 on a CPU in scenes of 640 x 640 pixels with 8,400 priors; a small w is documented
behaviour that counts as wrong in the totals. mmdet lacks the last five.
"""


def anchor(title: str) -> str:
    """The name by which a heading is linked."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def contents() -> str:
    """Links to the sections, none of them broken across lines."""
    links = [f"[{title}](#{anchor(title)})".replace(" ", "\0") for title in SECTIONS]
    return textwrap.fill(" · ".join(links), 110, break_on_hyphens=False).replace("\0", " ")


def find(faults: Iterable[Fault], subjects: Sequence[Subject], policy: str | None = None) -> dict[str, list[Outcome]]:
    """Outcomes of each fault, in the order of the subjects; "-" where it doesn't apply."""
    return {
        fault.number: [
            worst_of_all_ways(fault, each, policy) if fault.applies(each) else Outcome("-") for each in subjects
        ]
        for fault in faults
    }


def complaints(found: Mapping[str, Sequence[Outcome]], subjects: Sequence[Subject]) -> list[str]:
    """What is bad, a line each."""
    return [
        f"{number} {subject.code}: {outcome.letter}, {outcome.why}"
        for number, outcomes in found.items()
        for subject, outcome in zip(subjects, outcomes)
        if outcome.bad
    ]


def page(
    found: Mapping[str, Sequence[Outcome]],
    of_costs: Mapping[str, Sequence[Outcome]],
    replaced: Mapping[str, Sequence[Outcome]],
) -> str:
    """The whole page in Markdown."""
    parts = [INTRODUCTION.format(kinds=len(found), contents=contents()), "## Totals\n", totals(found), legend()]
    parts.append("## Assigners\n")
    for letter, faults in groupby(FAULTS, key=lambda fault: fault.number[0]):
        parts.append(f"### {letter}. {GROUPS[letter]}\n")
        parts.append(table(list(faults), found, SUBJECTS, with_mmdet=True))
    parts.append(
        "## What `on_nonfinite='replace'` makes of them\n\nOn a device that is the default of all but the Hungarian "
        "assigners. What is bad is never matched, and the others are matched as without it. Region has no ignore "
        "regions and refuses them.\n"
    )
    parts.append(table(REPLACED, replaced, SUBJECTS))
    parts.append("## Match costs\n\nEach alone in a Hungarian assigner, under the faults that it can meet.\n")
    parts.append(legend(COSTS, lambda each: cost_name(each)))
    parts.append(table([fault for fault in FAULTS if fault.costs], of_costs, COSTS))
    return "\n".join(parts)


def cost_name(subject: Subject) -> str:
    """Class of the cost, and that of its masks."""
    (config,) = subject.options["match_costs"]
    return config["type"] + (" of masks" if config.get("binary_input") else "")


def legend(subjects: Sequence[Subject] = SUBJECTS, name: Callable[[Subject], str] = lambda each: each.name) -> str:
    """What the codes stand for."""
    names = ", ".join(f"{each.code} {name(each).removesuffix('Assigner')}" for each in subjects)
    return textwrap.fill(names + ".", 120) + "\n"


def table(
    faults: Sequence[Fault],
    found: Mapping[str, Sequence[Outcome]],
    subjects: Sequence[Subject],
    with_mmdet: bool = False,
) -> str:
    """A row for each fault, a column for each subject: ours, and mmdet's letter behind it where it is another."""
    lines = ["| | fault | " + " | ".join(each.code for each in subjects) + " |", "|---|---|" + "---|" * len(subjects)]
    for fault in faults:
        cells = []
        for subject, outcome in zip(subjects, found[fault.number]):
            theirs = fault.letter_of_mmdet(subject) if with_mmdet else "?"
            cells.append(outcome.letter if theirs in ("-", "?") else f"{outcome.letter} {theirs}")
        lines.append(f"| {fault.number} | {fault.what} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def totals(found: Mapping[str, Sequence[Outcome]]) -> str:
    """How many cells have which letter, ours and mmdet's, of the assigners that mmdet has."""
    ours: Counter[str] = Counter()
    theirs: Counter[str] = Counter()
    new: Counter[str] = Counter()
    for fault in FAULTS:
        for subject, outcome in zip(SUBJECTS, found[fault.number]):
            letter = fault.letter_of_mmdet(subject)
            if letter == "?":
                new[outcome.letter] += 1
            elif letter != "-":
                ours[outcome.letter] += 1
                theirs["W" if letter == "w" else letter] += 1
    letters = "REKXWO"
    lines = ["| | cells | " + " | ".join(letters) + " |", "|---|---:|" + "---:|" * len(letters)]
    for name, counts in (("this package", ours), ("mmdet", theirs), ("those that mmdet lacks", new)):
        lines.append(f"| {name} | {counts.total():,} | " + " | ".join(str(counts[each]) for each in letters) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    torch.set_num_threads(1)
    by_assigner, by_cost = find(FAULTS, SUBJECTS), find([fault for fault in FAULTS if fault.costs], COSTS)
    by_replacing = find(REPLACED, SUBJECTS, policy="replace")
    PAGE.write_text(page(by_assigner, by_cost, by_replacing))
    print(f"{PAGE} is written")
    for found, subjects in ((by_assigner, SUBJECTS), (by_cost, COSTS), (by_replacing, SUBJECTS)):
        print(*complaints(found, subjects), sep="\n")
