"""The way to where something does not hold: in words, and as a Mermaid diagram."""

from collections.abc import Iterator

from sprockets_amqp.proof.judge import Finding
from sprockets_amqp.proof.reaction import Step
from sprockets_amqp.states import MACHINES
from sprockets_amqp.states.world import World

from .declared import full_name


def told(finding: Finding) -> str:
    """Tell what does not hold, the shortest way to it, and what may go on for ever there."""
    lines = [finding.words]
    if finding.path and finding.path[0].world.given:
        lines.append("      with an outbox:")
    before: World | None = None
    for number, step in enumerate(finding.path, 1):
        lines.append(f"{number:4}. {_told(before, step)}")
        before = step.world
    if finding.cycle:
        lines.append("      and then, again and again:")
        for step in finding.cycle:
            lines.append(f"      - {_told(before, step)}")
            before = step.world
    elif finding.stays:
        lines.append("      and then nothing need happen any more")
    return "\n".join(lines) + "\n"


def _told(before: World | None, step: Step) -> str:
    changes = "; ".join(f"{name} {source} -> {dest}" for name, source, dest in _changes(before, step.world))
    said = "".join(f" [{guard}: {'yes' if yes else 'no'}]" for guard, yes in step.assumed)
    return f"{step.event.words}{said}" + (f": {changes}" if changes else "")


def _plain(words: str) -> str:
    """Leave out what Mermaid takes for the end of a label."""
    return words.replace(":", ",").replace(";", ",")


def _changes(before: World | None, after: World) -> Iterator[tuple[str, str, str]]:
    for machine in MACHINES:
        source = machine.initial if before is None else getattr(before, machine.name)
        dest = getattr(after, machine.name)
        if source is not dest:
            yield machine.name, full_name(source), full_name(dest)


def drawn(finding: Finding) -> str:
    """Draw the way as a Mermaid diagram: a box for each world, with the states that differ from the one before."""
    lines = ["stateDiagram-v2", "    direction TB", "    [*] --> w0", "    w0 : at first"]
    before: World | None = None
    count = len(finding.path)
    for number, step in enumerate((*finding.path, *finding.cycle), 1):
        # The last step of a circle leads back to where it begins.
        last = bool(finding.cycle) and number == count + len(finding.cycle)
        dest = f"w{count}" if last else f"w{number}"
        lines.append(f"    w{number - 1} --> {dest} : {_plain(step.event.words)}")
        if not last:
            changes = [f"{name} {now}" for name, _was, now in _changes(before, step.world)]
            lines.append(f"    {dest} : {'<br/>'.join(changes) or 'no state changes'}")
        before = step.world
    return "\n".join(lines) + "\n"
