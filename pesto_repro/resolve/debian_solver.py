"""The search for Debian packages that meet every demand, and why there is none.

What has only one answer is decided first; then the options of what is open are tried in turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pesto_repro.lock.model import DebianPackage
from pesto_repro.resolve.debian_index import Index, Record
from pesto_repro.resolve.debian_relation import Clause, Relation, Version

_PRIORITIES = ("required", "important", "standard", "optional", "extra")


@dataclass(frozen=True, slots=True)
class Demand:
    """Somebody's need: *by* is the package whose need it is, "" for what was asked for."""

    clause: Clause
    by: str


class Unsatisfiable(Exception):
    """No answer: *lines* say why, *involved* are the packages without which it would not be so.

    *nearest* are those of them whose version, were it another one, might mend it.
    """

    def __init__(self, lines: Sequence[str], involved: Iterable[str], nearest: Iterable[str]) -> None:
        super().__init__(*lines)
        self.lines, self.involved, self.nearest = tuple(lines), frozenset(involved), frozenset(nearest)


class Universe:
    """One candidate for each name, over all suites."""

    def __init__(self, indices: Sequence[Index], architecture: str, pins: Mapping[str, DebianPackage]) -> None:
        self.suite, self.architecture = indices[0].suite, architecture
        self._indices, self._pins = indices, pins
        self._candidates: dict[str, Record | None] = {}
        self._options: dict[Clause, tuple[Record, ...]] = {}

    def names(self) -> Iterator[str]:
        return (name for each in self._indices for name in each.names())

    def is_pinned(self, name: str) -> bool:
        return name in self._pins

    def candidate(self, name: str) -> Record | None:
        """The record that stands for *name*: the pinned version, else the highest."""
        if name not in self._candidates:
            self._candidates[name] = self._best(name)
        return self._candidates[name]

    def options(self, clause: Clause) -> tuple[Record, ...]:
        """The candidates that satisfy *clause*, the preferred one first, each once."""
        if clause not in self._options:
            alternatives = (each for each in clause.alternatives if each.concerns(self.architecture))
            found = {record.name: record for relation in alternatives for record in self._meeting(relation)}
            self._options[clause] = tuple(found.values())
        return self._options[clause]

    def _meeting(self, relation: Relation) -> Iterator[Record]:
        real = self.candidate(relation.name)
        if real is not None and real.satisfies(relation):
            yield real
        providers = {each.name for index in self._indices for each in index.providers(relation.name)}
        candidates = (each for name in providers if (each := self.candidate(name)) is not None)
        yield from sorted((each for each in candidates if each.satisfies(relation)), key=_preference)

    def _best(self, name: str) -> Record | None:
        records = [record for each in self._indices for record in each.named(name)]
        pin = self._pins.get(name)
        pinned = (
            each for each in records if pin and (each.version, each.fields["sha256"]) == (pin.version, pin.sha256)
        )
        return next(pinned, None) or max(records, key=lambda each: Version(each.version), default=None)


def _preference(record: Record) -> tuple[int, str]:
    priority = record.fields.get("priority", "")
    return (_PRIORITIES.index(priority) if priority in _PRIORITIES else len(_PRIORITIES), record.name)


@dataclass(frozen=True, slots=True)
class _State:
    """What has been chosen, and why: the first demand that brought each package."""

    chosen: Mapping[str, Record]
    reasons: Mapping[str, Demand]

    def meets(self, options: Iterable[Record]) -> bool:
        return any(each.name in self.chosen for each in options)

    def chain(self, name: str) -> Iterator[Demand]:
        """Why *name* is there: its own reason first, what was asked for last."""
        while name:
            yield self.reasons[name]
            name = self.reasons[name].by


def solve(universe: Universe, demands: Sequence[Demand]) -> tuple[Record, ...]:
    """The records that meet *demands* and each other's, sorted by name. Raises Unsatisfiable."""
    state = _search(universe, _State({}, {}), demands)
    return tuple(state.chosen[name] for name in sorted(state.chosen))


def _search(universe: Universe, state: _State, demands: Sequence[Demand]) -> _State:
    """Follow what has one answer; then try the options of one open demand in turn."""
    state, open_demands = _propagate(universe, state, demands)
    if not open_demands:
        _refuse_conflicts(state)
        return state
    demand = min(open_demands, key=lambda each: (str(each.clause), each.by))
    first: Unsatisfiable | None = None
    for option in universe.options(demand.clause):
        try:
            return _search(universe, *_take(state, option, demand, open_demands))
        except Unsatisfiable as failure:
            if option.name not in failure.involved:  # another option would end in the same place
                raise
            first = first or failure
    assert first is not None
    raise first


def _take(state: _State, record: Record, demand: Demand, rest: Iterable[Demand]) -> tuple[_State, list[Demand]]:
    chosen = {**state.chosen, record.name: record}
    reasons = {**state.reasons, record.name: demand}
    return _State(chosen, reasons), [*rest, *(Demand(clause, record.name) for clause in record.needs)]


def _propagate(universe: Universe, state: _State, demands: Iterable[Demand]) -> tuple[_State, list[Demand]]:
    """Choose all that has no alternative: the new state, and the demands that are still open."""
    chosen, reasons = dict(state.chosen), dict(state.reasons)
    queue, several = deque(demands), []
    current = _State(chosen, reasons)
    while queue:
        demand = queue.popleft()
        options = universe.options(demand.clause)
        if not options:
            raise _missing(universe, current, demand)
        if len(options) > 1:
            several.append(demand)
        elif options[0].name not in chosen:
            record = options[0]
            chosen[record.name], reasons[record.name] = record, demand
            queue.extend(Demand(clause, record.name) for clause in record.needs)
    return current, [each for each in several if not current.meets(universe.options(each.clause))]


def _missing(universe: Universe, state: _State, demand: Demand) -> Unsatisfiable:
    """A demand that nothing meets, with the chain of those who led to it."""
    has = "; ".join(_offer(universe, each) for each in demand.clause.alternatives)
    steps = [demand, *state.chain(demand.by)]
    lines = [_told(state, each) for each in reversed(steps)]
    nearest = {each.name for each in demand.clause.alternatives}
    return Unsatisfiable([*lines[:-1], f"{lines[-1]}, but {has}"], nearest | {each.by for each in steps}, nearest)


def _offer(universe: Universe, relation: Relation) -> str:
    record = universe.candidate(relation.name)
    return f"{record.suite} has {record}" if record else f"{universe.suite} has no {relation.name}"


def _told(state: _State, demand: Demand) -> str:
    return f"{state.chosen[demand.by]} needs {demand.clause}" if demand.by else f"{demand.clause} is asked for"


def _refuse_conflicts(state: _State) -> None:
    provided = _provided(state.chosen.values())
    for name in sorted(state.chosen):
        record = state.chosen[name]
        for relation in record.excludes:
            for other in (state.chosen.get(relation.name), *provided.get(relation.name, ())):
                # Debian Policy 7.4: a package may conflict with what it provides: that excludes the others
                if other is not None and other.name != name and other.satisfies(relation):
                    raise _conflict(state, record, relation, other)


def _provided(records: Iterable[Record]) -> dict[str, list[Record]]:
    table: dict[str, list[Record]] = {}
    for record in records:
        for relation in record.provides:
            table.setdefault(relation.name, []).append(record)
    return table


def _conflict(state: _State, record: Record, relation: Relation, other: Record) -> Unsatisfiable:
    lines, involved = [f"{record} excludes {relation}, and {other} is needed too"], set[str]()
    for name in (record.name, other.name):
        steps = list(state.chain(name))
        lines += [f"{name}: {_told(state, each)}" for each in reversed(steps)]
        involved |= {name, *(each.by for each in steps)}
    return Unsatisfiable(lines, involved, {record.name, other.name})
