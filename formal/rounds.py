"""Every behaviour of a few sites against a coordinator that lies: a bounded check of docs/protocol.md, section 5.

The coordinator and `colluding_sites` of the sites are one attacker. It opens attempts of one round, with any
broadcast, at any honest site, tells every site any survivors set, and hands on any signatures that exist. Sites follow
the rules. All reachable states are visited; in each, what the attacker can compute is worked out exactly:

A context gives it the masked vectors of the honest sites. In a sum `a_1 y_1 + a_2 y_2 + ...` the own mask of site i
drops out when its seed is known, and the mask of a pair i, j when its seed is known or `a_i = a_j`. So join honest
sites whose pair seed is not known: the sums that come out are those over whole connected pieces whose own seeds are all
known.

Nothing is installed for it: `python formal/rounds.py`. What it shows and what not is said in formal/README.md.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations

Context = tuple[int, int]  # attempt, broadcast
Survivors = frozenset[int]  # the honest ones; colluding sites are always counted in, which is best for the attacker
Said = frozenset[tuple[Context, Survivors]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Terms, how much the attacker may do, and the rules that a check of the checker takes away."""

    num_sites: int
    threshold: int
    minimum_survivors: int
    colluding_sites: int = 0
    is_strict: bool = True
    num_attempts: int = 1
    num_broadcasts: int = 1
    remembers: bool = True  # what a site signed and released outlives its restarts
    one_kind: bool = True  # shares of the own seed or of the pair seeds of a site, never both
    once_a_round: bool = True  # a site releases shares in one attempt of a round
    asks_again: bool = False  # the attempts are rounds of their own, or of other runs, that all put the same ask
    one_set_an_ask: bool = True  # a site that released shares for an ask answers it again for the same survivors alone
    binds_broadcast: bool = True  # the context depends on what was asked

    @property
    def honest(self) -> range:
        """The honest sites; the others collude."""
        return range(self.num_sites - self.colluding_sites)

    @property
    def survivors_sets(self) -> tuple[Survivors, ...]:
        """Every set that honest sites let pass."""
        fewest = max(1, self.minimum_survivors - self.colluding_sites)
        sizes = range(fewest, len(self.honest) + 1)
        return tuple(frozenset(members) for size in sizes for members in combinations(self.honest, size))


@dataclass(frozen=True, slots=True)
class Site:
    """What one honest site has done."""

    asked: tuple[tuple[int, int], ...] = ()  # (attempt, broadcast), one an attempt
    signed: Said = frozenset()
    released: Said = frozenset()

    def context(self, rules: Rules) -> Context | None:
        """The one context that it still answers in: of the latest attempt."""
        return _context(self.asked[-1], rules) if self.asked else None


State = tuple[Site, ...]


def _context(asked: tuple[int, int], rules: Rules) -> Context:
    attempt, broadcast = asked
    return (attempt, broadcast if rules.binds_broadcast else 0)


def _steps(rules: Rules, state: State, index: int) -> Iterator[Site]:
    """What the attacker can make one site do next."""
    site = state[index]
    if rules.remembers and rules.once_a_round and site.released and not rules.asks_again:
        return  # a further attempt, another set: refused
    for attempt in range(site.asked[-1][0] + 1 if site.asked else 0, rules.num_attempts):
        for broadcast in range(rules.num_broadcasts):
            yield replace(site, asked=(*site.asked, (attempt, broadcast)))
    context = site.context(rules)
    if context is None or (rules.remembers and any(x == context for x, _ in site.released)):
        return
    for survivors in rules.survivors_sets:
        if index in survivors and _all_answered(rules, state, context, survivors):
            yield from _answers(rules, state, index, (context, survivors))


def _all_answered(rules: Rules, state: State, context: Context, survivors: Survivors) -> bool:
    """Each of them has signed a masked input of this context."""
    return all(any(_context(asked, rules) == context for asked in state[i].asked) for i in survivors)


def _answers(rules: Rules, state: State, index: int, said: tuple[Context, Survivors]) -> Iterator[Site]:
    site = state[index]
    if rules.asks_again and rules.one_set_an_ask and any(survivors != said[1] for _, survivors in site.released):
        return  # the same ask over other sites: refused
    if not rules.is_strict:
        yield replace(site, released=site.released | {said})
        return
    earlier = {one for one in site.signed if one[0] == said[0]}
    if said not in site.signed and not (rules.remembers and earlier):
        yield replace(site, signed=site.signed | {said})
    num_signatures = sum(said in other.signed for other in state) + rules.colluding_sites
    if said in site.signed and num_signatures >= rules.threshold:
        yield replace(site, released=site.released | {said})


def computable_sums(rules: Rules, state: State, context: Context) -> list[Survivors]:
    """The smallest sets of honest sites whose sum the attacker can work out in one context."""
    given = [[u for x, u in site.released if x == context] for site in state]

    def is_known(sharer: int, lost: int | None) -> bool:
        """Enough holders gave shares of the sharer's own seed (lost is None), or of its seed with a lost site."""
        fits = [
            any(sharer in u and (lost is None or lost not in u or not rules.one_kind) for u in sets) for sets in given
        ]
        return sum(fits) + rules.colluding_sites >= rules.threshold

    answered = {i for i in rules.honest if any(_context(asked, rules) == context for asked in state[i].asked)}
    known_pairs = {(i, j) for i in answered for j in answered if i != j and (is_known(i, j) or is_known(j, i))}
    return [piece for piece in _pieces(answered, known_pairs) if all(is_known(i, None) for i in piece)]


def _pieces(members: set[int], cut: set[tuple[int, int]]) -> list[Survivors]:
    """Connected pieces of the graph in which two sites are joined unless the pair is cut."""
    left, pieces = set(members), []
    while left:
        piece: set[int] = set()
        edge = {left.pop()}
        while edge:
            one = edge.pop()
            piece.add(one)
            near = {other for other in left if (one, other) not in cut}
            left -= near
            edge |= near
        pieces.append(frozenset(piece))
    return pieces


def all_sums(rules: Rules, state: State) -> list[tuple[Context, Survivors]]:
    """The same for every context of a state."""
    contexts = {_context(asked, rules) for site in state for asked in site.asked}
    return [(context, piece) for context in contexts for piece in computable_sums(rules, state, context)]


def violated(rules: Rules, state: State, sums: list[tuple[Context, Survivors]]) -> set[str]:
    """The properties that a state breaks."""
    broken = set()
    if any(len(piece) < rules.minimum_survivors - rules.colluding_sites for _, piece in sums):
        broken.add("no sum over too few")
    if rules.asks_again:
        if len({piece for _, piece in sums}) > 1:
            broken.add("one total an ask")
    elif len(sums) > 1:
        broken.add("one total a round")
    if any(len({dict(state[i].asked)[context[0]] for i in piece}) > 1 for context, piece in sums):
        broken.add("one broadcast a total")
    released = [said for site in state for said in site.released]
    if any(x == y and u != v for x, u in released for y, v in released):
        broken.add("one survivors set a context")
    return broken


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a search over all states found."""

    num_states: int
    broken: frozenset[str]
    fewest_in_a_sum: int | None  # honest sites in the smallest sum that came out


def search(rules: Rules, *, stop_at: str | None = None) -> Outcome:
    """Visit every reachable state, or stop at the first one that breaks a property."""
    start: State = tuple(Site() for _ in rules.honest)
    seen, edge = {start}, [start]
    broken: set[str] = set()
    sizes: set[int] = set()
    while edge and stop_at not in broken:
        for after in _next_states(rules, edge.pop()):
            if after in seen:
                continue
            seen.add(after)
            edge.append(after)
            if any(site.released for site in after):
                sums = all_sums(rules, after)
                sizes |= {len(piece) for _, piece in sums}
                broken |= violated(rules, after, sums)
    return Outcome(len(seen), frozenset(broken), min(sizes, default=None))


def _next_states(rules: Rules, state: State) -> Iterator[State]:
    for index in rules.honest:
        for site in _steps(rules, state, index):
            yield (*state[:index], site, *state[index + 1 :])


def fewest_by_formula(rules: Rules) -> int:
    """Honest sites in the smallest sum that two legs let out, where 2t > n + c and fewer than all may survive."""
    num_honest = len(rules.honest)
    num_left_out = rules.num_sites - rules.minimum_survivors
    cut_off = num_honest * num_left_out // (rules.threshold - rules.colluding_sites)
    return max(1, num_honest - cut_off)


ISOLATION, TOTALS, ASKS, BROADCAST, AGREEMENT = (
    "no sum over too few",
    "one total a round",
    "one total an ask",
    "one broadcast a total",
    "one survivors set a context",
)
FOUR = Rules(num_sites=4, threshold=3, minimum_survivors=3, colluding_sites=1)
FIVE = Rules(num_sites=5, threshold=3, minimum_survivors=3)

# A name, the rules, and exactly the properties that break: none where the rules are those of strict mode.
FULL: tuple[tuple[str, Rules, frozenset[str]], ...] = (
    ("strict, 4 sites, 1 colludes, 2 attempts", replace(FOUR, num_attempts=2), frozenset()),
    (
        "strict, 4 sites, 1 colludes, 2 attempts, 2 broadcasts",
        replace(FOUR, num_attempts=2, num_broadcasts=2),
        frozenset(),
    ),
    (
        "strict, 5 sites, 1 colludes",
        replace(FIVE, threshold=4, minimum_survivors=4, colluding_sites=1),
        frozenset(),
    ),
    ("strict, 5 sites, 2 collude", replace(FIVE, threshold=4, minimum_survivors=4, colluding_sites=2), frozenset()),
    (
        "two legs, 4 sites, 1 colludes, all must survive",
        replace(FOUR, is_strict=False, minimum_survivors=4),
        frozenset(),
    ),
    (
        "two legs, 4 sites, 1 colludes, 2 attempts",
        replace(FOUR, is_strict=False, num_attempts=2),
        frozenset({AGREEMENT}),
    ),
    (
        "strict, 4 sites, 1 colludes, one ask in 2 rounds",
        replace(FOUR, num_attempts=2, asks_again=True),
        frozenset(),
    ),
    (
        "two legs, 4 sites, 1 colludes, one ask in 2 rounds",
        replace(FOUR, is_strict=False, num_attempts=2, asks_again=True),
        frozenset({AGREEMENT}),
    ),
)
# A name, the rules with one of them taken away, and a property that must break.
WEAKENED: tuple[tuple[str, Rules, str], ...] = (
    ("two legs, 5 sites: a sum over fewer than the least survivors", replace(FIVE, is_strict=False), ISOLATION),
    ("two legs, 2t = n + c: a site alone", replace(FOUR, threshold=2, colluding_sites=0, is_strict=False), ISOLATION),
    ("strict, 2t = n + c: two survivors sets", replace(FOUR, threshold=2, colluding_sites=0), AGREEMENT),
    ("strict, 2t = n + c: a site alone", replace(FOUR, threshold=2, colluding_sites=0), ISOLATION),
    ("strict, 2t < n + c: two totals", replace(FOUR, threshold=2, num_attempts=2), TOTALS),
    ("one more colludes than was said", replace(FOUR, colluding_sites=2), AGREEMENT),
    ("a site forgets over a restart what it signed", replace(FOUR, remembers=False), ISOLATION),
    ("a site forgets over a restart, with attempts", replace(FOUR, remembers=False, num_attempts=2), TOTALS),
    ("a site gives shares in two attempts", replace(FOUR, once_a_round=False, num_attempts=2), TOTALS),
    (
        "one ask in 2 rounds over other sites: two totals",
        replace(FOUR, num_attempts=2, asks_again=True, one_set_an_ask=False),
        ASKS,
    ),
    (
        "2t = n + c, one ask in 2 rounds: two totals",
        replace(FOUR, num_attempts=2, asks_again=True, threshold=2, colluding_sites=0),
        ASKS,
    ),
    ("both kinds of share are given", replace(FOUR, one_kind=False), ISOLATION),
    ("a context without the broadcast", replace(FOUR, num_broadcasts=2, binds_broadcast=False), BROADCAST),
)


def main() -> int:
    """Run all searches; 0 when each ends as it should."""
    is_right = True
    for name, rules, expected in FULL:
        outcome = search(rules)
        is_right &= outcome.broken == expected
        sys.stdout.write(f"{name}: {outcome.num_states} states, breaks {sorted(outcome.broken) or 'nothing'}\n")
    for name, rules, expected_property in WEAKENED:
        outcome = search(rules, stop_at=expected_property)
        is_right &= expected_property in outcome.broken
        found = "found" if expected_property in outcome.broken else "NOT FOUND"
        sys.stdout.write(f"{name}: '{expected_property}' broken: {found}\n")
    sys.stdout.write("all as it should be\n" if is_right else "NOT as it should be\n")
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
