"""Whether a trace is one that the declaration allows: each recorded step, and what must hold along it.

A trace says which triggers were pulled, and not what is so around the machines. So all worlds are followed in which all
that was recorded may have happened; when none is left, something happened that the declaration does not have.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from sprockets_amqp.drawing.declared import full_name
from sprockets_amqp.proof.explore import explore
from sprockets_amqp.proof.judge import is_ignored
from sprockets_amqp.proof.reaction import Reactions
from sprockets_amqp.states import Row
from sprockets_amqp.states.properties import ALWAYS
from sprockets_amqp.states.world import Publish, World

from .trace import GAUGES, STATES, Pull, Trace
from .trace import Line as Recorded

#: What was done: the machines, and their rows.
Rows = tuple[tuple[str, Row], ...]
#: The worlds that it may have got to.
Worlds = frozenset[World]
#: What the publisher asks for, also in the course of an action; the declaration has it as an event of its own.
_ASKED: Final = frozenset({("check", "check_requested"), ("outbox", "backlog_began")})


class Finding(NamedTuple):
    """What is wrong with a trace.

    Attributes:
        number: the number of the line, from 0.
        words: what is wrong.
    """

    number: int
    words: str


class _Steps(NamedTuple):
    """What may happen next in a world.

    Attributes:
        silent: the worlds that it may become without anything to record.
        done: for each machine and trigger that is pulled first with a row, where that may lead, and with which rows.
        ignored: for each one that may be pulled without a row, the worlds afterwards.
    """

    silent: set[World]
    done: dict[tuple[str, str], set[tuple[World, Rows]]]
    ignored: dict[tuple[str, str], set[World]]


class Judge:
    """Judges traces; the more it has judged, the faster it is."""

    def __init__(self) -> None:
        self._reactions = Reactions()
        self._machines = self._reactions.machines
        self._all: dict[tuple[str, ...], set[World]] = {}
        self._steps: dict[World, _Steps] = {}
        self._reach: dict[Worlds, Worlds] = {}
        self._after: dict[tuple[Worlds, Pull], Worlds] = {}

    def judge(self, recorded: Trace) -> Finding | None:
        """Return the first line that the declaration does not allow, or None."""
        worlds: Worlds = frozenset()
        states: dict[str, str] = {}
        counted = _Counted()
        for number, line in enumerate(recorded.lines):
            if line.states and states:
                if dict(line.states) != states:
                    return Finding(number, f"the last file ended in other states: {_named(states)}")
            elif line.states:
                states = dict(line.states)
                if (problem := self._unknown(states)) or not (worlds := self._begin(line)):
                    return Finding(number, problem or f"these states cannot be reached together: {_named(states)}")
                if recorded.is_whole:
                    counted.begin()
            elif line.pull is not None:
                pull = _bare(line.pull)
                problem = self._misfit(pull, states) or self._follow(worlds, pull)
                if problem:
                    return Finding(number, problem)
                worlds = self._after[worlds, pull]
            counted.see(worlds)
            if problem := counted.problem(line.counters) or self._miscounted(worlds, line):
                return Finding(number, problem)
        return None

    # The beginning

    def _unknown(self, states: Mapping[str, str]) -> str:
        if states.keys() != self._machines.keys():
            return f"the declaration has the machines {', '.join(self._machines)}, and the trace {', '.join(states)}"
        unknown = next((name for name, state in states.items() if state not in STATES[name]), "")
        return f"the {unknown} has no state {states[unknown]!r}" if unknown else ""

    def _begin(self, line: Recorded) -> Worlds:
        """Return all worlds in which a trace may begin."""
        if line.part == 1:
            worlds = self._reactions.beginnings()
        else:
            # It may be anywhere.
            if not self._all:
                for world in explore(self._reactions).worlds:
                    key = tuple(full_name(getattr(world, name)) for name in self._machines)
                    self._all.setdefault(key, set()).add(world)
            worlds = list(self._all.get(tuple(line.states[name] for name in self._machines), ()))
        return frozenset(
            world
            for world in worlds
            if all(full_name(getattr(world, name)) == state for name, state in line.states.items())
        )

    # A step

    def _misfit(self, pull: Pull, states: dict[str, str]) -> str:
        """Say what of a pull does not fit the states before it, the rows, or the following; note the states after."""
        if problem := self._unknown_in(pull):
            return problem
        if pull.source != states[pull.machine]:
            return f"the {pull.machine} was left in {states[pull.machine]}, and is found in {pull.source}"
        if pull.dest and not self._has_row(pull):
            return f"no row of the {pull.machine} leads from {pull.source} to {pull.dest} by {pull.trigger}"
        states[pull.machine] = pull.dest or pull.source
        return self._misled(pull) or next(filter(None, (self._misfit(each, states) for each in pull.then)), "")

    def _unknown_in(self, pull: Pull) -> str:
        """Say what of a pull the declaration does not know."""
        machine = self._machines.get(pull.machine)
        if machine is None:
            return f"the declaration has no machine {pull.machine!r}"
        if not machine.sources(pull.trigger):
            return f"the {pull.machine} has no trigger {pull.trigger!r}"
        known = STATES[pull.machine]
        unknown = next((state for state in (pull.source, pull.dest) if state and state not in known), "")
        return f"the {pull.machine} has no state {unknown!r}" if unknown else ""

    def _has_row(self, pull: Pull) -> bool:
        moves = self._reactions.moves(pull.machine, STATES[pull.machine][pull.source], pull.trigger)
        return any(full_name(move.row.dest) == pull.dest for move in moves)

    def _misled(self, pull: Pull) -> str:
        """Say what is missing in the course of a pull, or does not belong there: what follows comes at its end."""
        what = f"{pull.machine}.{pull.trigger}"
        follows = self._follows(pull)
        then = [(each.machine, each.trigger) for each in pull.then]
        asked, followed = then[: len(then) - len(follows)], then[len(then) - len(follows) :]
        if followed != follows:
            return f"what follows {what} here is: {', '.join(map('.'.join, follows))}"
        strange = next((each for each in asked if each not in _ASKED or not pull.dest), None)
        return f"{'.'.join(strange)} is not pulled in the course of {what}" if strange is not None else ""

    def _follows(self, pull: Pull) -> list[tuple[str, str]]:
        """Return what the other machines pull because of this, in order."""
        if pull.machine != self._reactions.leader or not pull.dest:
            return []
        states = STATES[pull.machine]
        return list(self._reactions.follows(states[pull.source], states[pull.dest]))

    def _follow(self, worlds: Worlds, pull: Pull) -> str:
        """Find where a pull may lead; say why it cannot have happened, if it leads nowhere."""
        if (worlds, pull) in self._after:
            return ""
        reached: set[World] = set()
        for pulls in _splits(pull):
            now = worlds
            for each in pulls:
                now = frozenset(self._lead(now, each))
            reached |= now
        good = frozenset(world for world in reached if not _broken(world))
        if good:
            self._after[worlds, pull] = good
            return ""
        if reached:
            return f"this does not hold any more: {_broken(next(iter(reached)))}"
        return self._why(worlds, pull)

    def _lead(self, worlds: Worlds, pull: Pull) -> Iterator[World]:
        rows = Counter((each.machine, each.trigger, each.dest) for each in pull.flat() if each.dest)
        first = pull.machine, pull.trigger
        # What is asked for comes before the row of the action, where that is done before the state is left.
        begins = {first, *(_ASKED & {(each.machine, each.trigger) for each in pull.then})} if pull.dest else set()
        for steps in map(self._next, self._around(worlds)):
            if not pull.dest:
                yield from steps.ignored.get(first, ())
            for begin in begins:
                for after, done in steps.done.get(begin, ()):
                    if Counter((name, row.trigger, full_name(row.dest)) for name, row in done) == rows:
                        yield after

    def _around(self, worlds: Worlds) -> Worlds:
        """Return the worlds that these may have become without anything to record, and these."""
        found = self._reach.get(worlds)
        if found is None:
            around, todo = set(worlds), list(worlds)
            while todo:
                fresh = self._next(todo.pop()).silent - around
                around |= fresh
                todo.extend(fresh)
            found = self._reach[worlds] = frozenset(around)
        return found

    def _next(self, world: World) -> _Steps:
        steps = self._steps.get(world)
        if steps is None:
            steps = self._steps[world] = _Steps(set(), {}, {})
            for event, _timer in self._reactions.events(world):
                for step in self._reactions.react(world, event):
                    if step.rows:
                        name, row = step.rows[0]
                        steps.done.setdefault((name, row.trigger), set()).add((step.world, step.rows))
                    elif not event.trigger:
                        steps.silent.add(step.world)
                    elif is_ignored(self._machines[event.machine], world, step):
                        steps.ignored.setdefault((event.machine, event.trigger), set()).add(step.world)
        return steps

    def _why(self, worlds: Worlds, pull: Pull) -> str:
        what = f"{pull.machine}.{pull.trigger}"
        if not pull.dest and not pull.then:
            return f"{what} changed nothing, where a row applies, or where it cannot happen"
        key = pull.machine, pull.trigger
        expected = {_told(done) for world in self._around(worlds) for _, done in self._next(world).done.get(key, ())}
        if not expected:
            return f"{what} cannot happen here"
        return f"what {what} does here is: {', or: '.join(sorted(expected)[:4])}"

    # The counters

    def _miscounted(self, worlds: Worlds, line: Recorded) -> str:
        counters = line.counters
        around = self._around(worlds) if counters else ()
        if counters.get("waiting") and not any(map(_may_wait, around)):
            return f"{counters['waiting']} messages wait, where nothing can wait"
        if counters.get("unconfirmed") and not any(map(_may_be_unconfirmed, around)):
            return f"{counters['unconfirmed']} messages are unconfirmed, where nothing can be"
        for name in ("stored", "set_aside"):
            if counters.get(name) and not any(world.given for world in around):
                return f"{name} is {counters[name]}, and there is no outbox"
        return ""


class _Counted:
    """What the counters were, and what may have been counted since then."""

    def __init__(self) -> None:
        #: None: not known.
        self._before: Mapping[str, int] | None = None
        self._has_channel = self._had_channel = False

    def begin(self) -> None:
        """The client begins with counters that are 0."""
        self._before = {}

    def see(self, worlds: Worlds) -> None:
        """Note what may happen now."""
        self._has_channel = any(world.has("has_channel") for world in worlds)
        self._had_channel = self._had_channel or self._has_channel

    def problem(self, counters: Mapping[str, int]) -> str:
        """Say what cannot have been counted, if anything; empty if there are no counters."""
        if not counters:
            return ""
        before, self._before = self._before, counters
        had_channel, self._had_channel = self._had_channel, self._has_channel
        if counters.get("confirmed", 0) + counters.get("nacked", 0) > counters.get("published", 0):
            return "more messages were confirmed or nacked than published"
        if before is None:
            return ""
        fallen = next((name for name in before if name not in GAUGES and counters.get(name, 0) < before[name]), "")
        if fallen:
            return f"{fallen} fell from {before[fallen]} to {counters.get(fallen, 0)}"
        if counters.get("published", 0) > before.get("published", 0) and not had_channel:
            return "messages were published, and there was no channel"
        return ""


def _may_wait(world: World) -> bool:
    # Where publishing is possible, they wait for room among the unconfirmed, or for the check of an exchange.
    return world.sends or not _broken(world._replace(publish=Publish.WAITING))


def _may_be_unconfirmed(world: World) -> bool:
    return not _broken(world._replace(publish=Publish.SENT)) or not _broken(world._replace(publish=Publish.ANSWERED))


def _bare(pull: Pull) -> Pull:
    """Leave out what does not decide what is possible."""
    return pull._replace(reason="", then=tuple(map(_bare, pull.then)))


def _splits(pull: Pull) -> Iterator[tuple[Pull, ...]]:
    """Yield the events that a pull may consist of, in order: what is asked for may be one of its own."""
    yield (pull,)
    asked = tuple(each for each in pull.then if (each.machine, each.trigger) in _ASKED)
    if asked:
        rest = pull._replace(then=tuple(each for each in pull.then if each not in asked))
        yield (rest, *asked)
        yield (*asked, rest)


def _broken(world: World) -> str:
    return next((each.words for each in ALWAYS if not each.holds(world)), "")


def _told(rows: Rows) -> str:
    return ", then ".join(f"{name}.{row.trigger} to {full_name(row.dest)}" for name, row in rows)


def _named(states: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {state}" for name, state in states.items())
