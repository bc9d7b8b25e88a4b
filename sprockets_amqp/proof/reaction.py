"""How the declared machines react to an event, as `transitions` runs them: rows, actions and following.

This is the meaning of the declaration, without a loop, a client or a broker. `tests/test_proved.py` compares it with
`transitions`, and `tests/test_held.py` with the client.
"""

import enum
from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter
from typing import Any, Final, NamedTuple

from sprockets_amqp.states import MACHINES, Action, Delay, Machine, Row
from sprockets_amqp.states.effects import COUNTED, EFFECTS, GUARDS, TOUCHES, Effect
from sprockets_amqp.states.events import EVENTS, Event, Kind
from sprockets_amqp.states.world import ASSUMES, PULLS, Changes, Facts, World

#: A timer: the machine, and the state whose time it limits.
Timer = tuple[str, enum.Enum]
#: An action: its machine, and its name.
Act = tuple[str, str]


class Step(NamedTuple):
    """What an event does to the world.

    Attributes:
        event: the event.
        world: the world afterwards.
        assumed: what guards answered that may answer either way.
        rows: the rows that applied, with their machines, in order.
        acts: the actions, in order.
        left: the timers that it stopped.
        unused: whether no row of the event's machine was used: there is none, or guards forbid it.
        wrong: what must not happen, and did; empty: nothing.
    """

    event: Event
    world: World
    assumed: tuple[tuple[str, bool], ...] = ()
    rows: tuple[tuple[str, Row], ...] = ()
    acts: tuple[Act, ...] = ()
    left: frozenset[Timer] = frozenset()
    unused: bool = False
    wrong: str = ""


class _Move(NamedTuple):
    """What a row does from one state: its actions, and the timers that it stops."""

    row: Row
    before: tuple[tuple[Act, Effect], ...]
    after: tuple[tuple[Act, Effect], ...]
    left: frozenset[Timer]


class _Path(NamedTuple):
    """A step that has not ended."""

    world: World
    assumed: Mapping[str, bool]
    rows: tuple[tuple[str, Row], ...] = ()
    acts: tuple[Act, ...] = ()
    left: frozenset[Timer] = frozenset()
    wrong: str = ""


NOTHING: Final = Effect(lambda _: {})
_TOUCHED: Final = {name: attrgetter(*fields) for name, fields in TOUCHES.items()}


def _guards(machine: Machine) -> frozenset[str]:
    return frozenset(guard for row in machine.rows for guard in (row.conditions, row.unless) if guard)


_DECLARED_GUARDS: Final = {machine.name: _guards(machine) for machine in MACHINES}


class Reactions:
    """Machines, and how they react.

    Args:
        machines: the first leads, the others follow it.

    Attributes:
        machines: the machines, by their names.
        facts: what they declare about states.
        leader: the name of the machine that the others follow.
    """

    def __init__(self, machines: Iterable[Machine] = MACHINES) -> None:
        self.machines: dict[str, Machine] = {machine.name: machine for machine in machines}
        self.facts = Facts(self.machines)
        self.leader = next(iter(self.machines))
        self._led: dict[tuple[enum.Enum, enum.Enum], tuple[tuple[str, str], ...]] = {}
        self._moves: dict[tuple[str, enum.Enum, str], tuple[_Move, ...]] = {}
        #: A guard that is not declared there may ask about anything.
        self._touched = {
            name: read
            for name, read in _TOUCHED.items()
            if name not in self.machines or _guards(self.machines[name]) <= _DECLARED_GUARDS[name]
        }
        self._known: dict[tuple[Event, tuple[Any, ...]], list[tuple[Step, Changes]]] = {}
        self._clocks: dict[tuple[str, enum.Enum], tuple[tuple[Event, Timer], ...]] = {}
        self._follows = tuple(
            (name, frozenset(self.machines[self.leader].marked(follow.mark)), follow)
            for name, machine in self.machines.items()
            for follow in machine.follows
        )

    def beginnings(self) -> list[World]:
        """Return the worlds in which it may begin."""
        initial = {name: machine.initial for name, machine in self.machines.items()}
        return [World(self.facts, given=given, **initial) for given in (False, True)]  # type: ignore[arg-type]

    def events(self, world: World) -> Iterator[tuple[Event, Timer | None]]:
        """Yield what may happen in a world; an expiring timer comes with its name."""
        for event in EVENTS:
            if (not event.machine or event.machine in self.machines) and event.when(world):
                yield event, None
        for name in self.machines:
            yield from self._expiring(name, getattr(world, name))

    def timers(self, world: World) -> set[Timer]:
        """Return the timers that run in a world."""
        return {timer for name in self.machines for _, timer in self._expiring(name, getattr(world, name))}

    def react(self, world: World, event: Event) -> list[Step]:
        """Return what the event may do, one step for each answer of the guards that may answer either way."""
        touched = self._touched.get(event.machine)
        if touched is None:
            return self._react(world, event)
        key = event, touched(world)
        found = self._known.get(key)
        if found is None:
            steps = self._react(world, event)
            found = self._known[key] = [(step, _differences(world, step.world)) for step in steps]
        return [step._replace(world=world._replace(**changes)) for step, changes in found]  # type: ignore[arg-type]

    def _react(self, world: World, event: Event) -> list[Step]:
        then = event.then(world) if callable(event.then) else event.then
        begun = list(self._changed(_Path(world, event.assumes), then))
        if not event.trigger:
            return [_step(event, each) for each in begun]
        if not self.moves(event.machine, getattr(world, event.machine), event.trigger):
            return [Step(event, world if event.kind == "request" else each.world, unused=True) for each in begun]
        return [_step(event, done) for each in begun for done in self._pull(each, event.machine, event.trigger)]

    def moves(self, name: str, state: enum.Enum, trigger: str) -> tuple[_Move, ...]:
        """Return what the rows for a trigger do from a state; a substate's rows come before its state's."""
        key = name, state, trigger
        found = self._moves.get(key)
        if found is None:
            machine = self.machines[name]
            around = dict.fromkeys((state, machine.outer[state]))
            rows = [row for each in around for row in machine.rows if row.trigger == trigger and each in row.source]
            found = self._moves[key] = tuple(self._move(machine, state, row) for row in rows)
        return found

    def _move(self, machine: Machine, state: enum.Enum, row: Row) -> _Move:
        stays_inside = machine.outer[state] is machine.outer[row.dest] and state is not row.dest
        leaves = [state] if stays_inside else list(dict.fromkeys((state, machine.outer[state])))
        enters = [row.dest] if stays_inside else list(dict.fromkeys((machine.outer[row.dest], row.dest)))
        declared, name = machine.declared, machine.name
        exits = [action for each in leaves for action in declared[each].on_exit]
        return _Move(
            row,
            _acts(name, [*([row.before] if row.before else []), *exits]),
            _acts(name, [action for each in enters for action in declared[each].on_enter]),
            frozenset((name, each) for each in leaves if declared[each].timeout),
        )

    def follows(self, source: enum.Enum, dest: enum.Enum) -> tuple[tuple[str, str], ...]:
        """Return what the machines that follow pull when the leader goes from one state to another, in order."""
        key = source, dest
        found = self._led.get(key)
        if found is None:
            found = self._led[key] = tuple(
                (name, trigger)
                for name, states, follow in self._follows
                if (source in states) is not (dest in states)
                and (trigger := follow.entered if dest in states else follow.left)
            )
        return found

    def _expiring(self, name: str, state: enum.Enum) -> tuple[tuple[Event, Timer], ...]:
        key = name, state
        found = self._clocks.get(key)
        if found is None:
            machine = self.machines[name]
            around = dict.fromkeys((state, machine.outer[state]))
            found = self._clocks[key] = tuple(
                (clock(name, machine, each), (name, each)) for each in around if machine.declared[each].timeout
            )
        return found

    def _pull(self, path: _Path, name: str, trigger: str) -> Iterator[_Path]:
        state = getattr(path.world, name)
        waiting = [(path, self.moves(name, state, trigger))]
        while waiting:
            path, moves = waiting.pop()
            if not moves:
                yield path
                continue
            move, *others = moves
            for allowed, asked in self._ask(path, move.row):
                if allowed:
                    yield from self._do(asked, name, state, move)
                else:
                    waiting.append((asked, tuple(others)))

    def _ask(self, path: _Path, row: Row) -> Iterator[tuple[bool, _Path]]:
        """Yield whether the row's guard allows it, for each answer that it may give."""
        guard = row.conditions or row.unless
        wanted = bool(row.conditions)
        if not guard:
            yield True, path
        elif guard in path.assumed:
            yield path.assumed[guard] is wanted, path
        elif guard in GUARDS:
            yield GUARDS[guard](path.world) is wanted, path
        else:
            for answer in (True, False):
                asked = _Path(path.world, {**path.assumed, guard: answer}, path.rows, path.acts, path.left, path.wrong)
                yield answer is wanted, asked

    def _do(self, path: _Path, name: str, state: enum.Enum, move: _Move) -> Iterator[_Path]:
        paths = [path]
        for act, effect in move.before:
            paths = [done for each in paths for done in self._effected(each, act, effect)]
        paths = [
            _Path(
                each.world._replace(**{name: move.row.dest}),  # type: ignore[arg-type]
                each.assumed,
                (*each.rows, (name, move.row)),
                each.acts,
                each.left | move.left,
                each.wrong,
            )
            for each in paths
        ]
        for act, effect in move.after:
            paths = [done for each in paths for done in self._effected(each, act, effect)]
        if name == self.leader:
            paths = [done for each in paths for done in self._lead(each, state, move.row.dest)]
        yield from paths

    def _effected(self, path: _Path, act: Act, effect: Effect) -> Iterator[_Path]:
        wrong, then = path.wrong, effect.then(path.world)
        if effect.needs is not None and not effect.needs(path.world):
            wrong = wrong or f"{act[1]}: {effect.wrong}"
        path = _Path(path.world, path.assumed, path.rows, (*path.acts, act), path.left, wrong)
        for changes in then if isinstance(then, tuple) else (then,):
            yield from self._changed(path, changes)

    def _changed(self, path: _Path, changes: Changes) -> Iterator[_Path]:
        if not changes:
            yield path
            return
        parts: Any = dict(changes)
        pulls, assumes = parts.pop(PULLS, None), parts.pop(ASSUMES, {})
        path = path._replace(world=path.world._replace(**parts), assumed={**path.assumed, **assumes})
        if pulls is not None and pulls[0] in self.machines:
            yield from self._pull(path, *pulls)
        else:
            yield path

    def _lead(self, path: _Path, source: enum.Enum, dest: enum.Enum) -> Iterator[_Path]:
        paths = [path]
        for name, trigger in self.follows(source, dest):
            paths = [done for each in paths for done in self._pull(each, name, trigger)]
        yield from paths


def _differences(before: World, after: World) -> Changes:
    return {name: now for name, was, now in zip(World._fields, before, after, strict=True) if was is not now}


def _step(event: Event, path: _Path) -> Step:
    unused = bool(event.trigger) and all(
        (name, row.trigger) != (event.machine, event.trigger) for name, row in path.rows
    )
    return Step(event, path.world, _sorted(path.assumed), path.rows, path.acts, path.left, unused, path.wrong)


def _sorted(assumed: Mapping[str, bool]) -> tuple[tuple[str, bool], ...]:
    return tuple(sorted(assumed.items())) if assumed else ()


def _acts(name: str, actions: Iterable[Action]) -> tuple[tuple[Act, Effect], ...]:
    effects = EFFECTS[name]
    return tuple(((name, action.name), effects.get(action.name, NOTHING)) for action in actions)


def clock(name: str, machine: Machine, state: enum.Enum) -> Event:
    """Return the event that the time of a state is over."""
    timeout = machine.declared[state].timeout
    assert timeout is not None
    kind: Kind = "delay" if isinstance(timeout, Delay) else "limit"
    return Event(kind, f"the clock: {timeout.words} is over", f"{name}.{timeout.trigger}", lambda _: True)


#: Guards whose answer can be relied on to change: they count.
COUNTING: Final = frozenset(COUNTED)
