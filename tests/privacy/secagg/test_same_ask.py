"""The same ask is summed over one set of sites: in later rounds, attempts and runs, and after a restart."""

import pytest

from tests.privacy.secagg.two_machines import ASK, TwoMachines, strict, two_leg
from wardround.errors import MessageRefusedError
from wardround.privacy.secagg import site
from wardround.privacy.secagg.coordinator import Phase
from wardround.privacy.secagg.site import SiteState
from wardround.privacy.secagg.stored import pack_state, unpack_state
from wardround.privacy.secagg.wire import COORDINATOR

MODES = pytest.mark.parametrize("mode", [strict, two_leg], ids=["strict", "two_leg"])
OTHER_RUN = b"another run here"
OTHERS = (0, 1, 2, 3)
"""All of five sites but one."""


def asked_again(machines: TwoMachines, number: int) -> TwoMachines:
    """The first round's ask in another round, and one site is lost before it answers."""
    machines.open(number, ask=ASK).upload_all(OTHERS).close()
    return machines


@MODES
def test_same_ask_has_one_total(mode):
    machines = asked_again(TwoMachines(5, mode(5)).open().finish(), 2)
    for index in OTHERS:
        with machines.refused("same_ask", COORDINATOR):
            machines.answer(index)
    machines.open(3).finish()  # another ask is answered as ever


@MODES
def test_the_same_ask_over_the_same_sites_has_the_same_total(mode):
    machines = TwoMachines(5, mode(5)).open().finish()
    machines.open(2, ask=ASK).finish()


@MODES
def test_as_many_sites_are_not_the_same_sites(mode):
    machines = asked_again(TwoMachines(5, mode(5)), 1).finish()
    machines.open(2, ask=ASK).upload_all((0, 1, 2, 4)).close()
    with machines.refused("same_ask", COORDINATOR):
        machines.answer(1)
    machines.answer(4)


@MODES
def test_after_a_total_without_a_site_the_same_is_asked_of_those_again(mode):
    machines = asked_again(TwoMachines(5, mode(5)), 1).finish()
    machines.open(2, ask=ASK).upload_all().close()
    with pytest.raises(MessageRefusedError, match=r"just those again \(site 0, site 1, site 2, site 3\)"):
        machines.answer(0)
    machines.open(3, roster=OTHERS, ask=ASK).upload_all().finish()


@MODES
def test_where_repeats_are_allowed_the_same_is_answered(mode):
    machines = TwoMachines(5, mode(5, allows_repeats=True)).open().finish()
    asked_again(machines, 2).finish()


@MODES
def test_an_attempt_in_which_nothing_was_released_does_not_count(mode):
    machines = TwoMachines(5, mode(5)).open().upload_all()
    machines.open(1, 2).upload_all(OTHERS).close()
    machines.finish()


@MODES
def test_the_same_ask_in_another_run_and_after_a_restart(mode):
    machines = TwoMachines(5, mode(5)).open().finish()
    machines.sites = [unpack_state(SiteState, pack_state(state)) for state in machines.sites]
    machines.run = OTHER_RUN
    asked_again(machines, 1)
    with machines.refused("same_ask", COORDINATOR):
        machines.answer(2)


def test_of_two_runs_at_once_one_alone_is_answered():
    """Signed in both, released in one: the other has to wait for ever."""
    first = TwoMachines(5, strict(5)).open().upload_all()
    first.close()
    first.answer_all()
    assert first.round.phase == Phase.UNMASK
    second = TwoMachines(5, strict(5), run=OTHER_RUN)
    second.sites = first.sites
    asked_again(second, 1).answer_all(OTHERS)
    assert second.round.phase == Phase.UNMASK
    first.sites = second.sites
    first.answer_all()
    first.check_total()
    second.sites = first.sites
    with second.refused("same_ask", COORDINATOR):
        second.answer(1)


def test_a_study_of_too_many_asks_is_refused(monkeypatch):
    monkeypatch.setattr(site, "MAX_ANSWERS", 2)
    machines = TwoMachines(3, strict(3)).open(1).finish().open(2).finish()
    machines.open(3).upload_all().close()
    with machines.refused("replayed", COORDINATOR):
        machines.answer(0)
