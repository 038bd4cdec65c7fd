"""What an agent's file says of its calls, as the phone gets it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bot.agents import AgentError, load_agent
from bot.answering import Answering, out_of_reach
from bot.calling import AgentCaller, caller
from bot.calls import Calls
from bot.ingress.sip.destinations import NotCallable
from bot.ingress.sip.placed import MachinePolicy
from bot.ingress.sip.settings import SipSettings

nobody = Calls(0).admit


def here(folder: Path, text: str) -> Answering:
    (folder / "caller.yaml").write_text(f"name: Caller\n{text}")
    agent = load_agent(folder, "caller")
    nothing: Any = None
    return Answering(nothing, agent, nothing, nothing, nothing, nothing)


@pytest.mark.parametrize(
    ("said", "policy"),
    [
        ("", MachinePolicy()),
        ("answering_machine: ignore", MachinePolicy()),
        ("answering_machine: hang_up", MachinePolicy(listen=True)),
        ("answering_machine: {leave_message: Call us.}", MachinePolicy(listen=True, message="Call us.")),
    ],
)
def test_what_a_machine_gets(tmp_path: Path, said: str, policy: MachinePolicy) -> None:
    assert AgentCaller(here(tmp_path, said), nobody).machine == policy


@pytest.mark.parametrize("said", ["sing", "{leave_message: ''}", "{leave: x}"])
def test_what_it_cannot_get_is_a_fault_of_the_file(tmp_path: Path, said: str) -> None:
    with pytest.raises(AgentError, match="answering_machine"):
        here(tmp_path, f"answering_machine: {said}")


def test_an_agent_calls_nobody_unless_its_file_says_whom(tmp_path: Path) -> None:
    assert AgentCaller(here(tmp_path, ""), nobody).may_call == ()
    assert AgentCaller(here(tmp_path, "may_call: ['1*@pbx.example']"), nobody).may_call == ("1*@pbx.example",)


def test_what_its_words_leave_open_is_filled_in_everywhere(tmp_path: Path) -> None:
    open_words = "instructions: You call {{name}}.\ngreeting: Hello {{ name }}!\n"
    open_words += 'answering_machine: {leave_message: "{{name}}, call {{shop}}."}'
    who = caller(here(tmp_path, open_words), {"name": "Ada", "shop": "Bluebird"}, nobody)
    agent = who.answering.agent
    assert (agent.instructions, agent.greeting) == ("You call Ada.", "Hello Ada!")
    assert who.machine.message == "Ada, call Bluebird."
    assert agent.base == "caller"  # it is still the same agent


@pytest.mark.parametrize(
    ("values", "said"), [({}, "asks for name"), ({"name": "Ada", "b": "", "a": ""}, "does not ask for a, b")]
)
def test_values_that_are_missing_or_of_no_use_are_named(
    tmp_path: Path, values: dict[str, str], said: str
) -> None:
    with pytest.raises(NotCallable, match=said) as refused:
        caller(here(tmp_path, "greeting: Hello {{name}}."), values, nobody)
    assert refused.value.code == "variables"


def test_whom_callers_cannot_be_put_through_to_is_said_before_anybody_asks(tmp_path: Path) -> None:
    targets = (
        "{sales: 'sip:s@192.0.2.7', help: 'sip:h@198.51.100.7', far: 'sip:f@198.51.100.7;transport=tcp'}"
    )
    for warm, said in (("true", ["help"]), ("false", [])):
        text = f"tools: [{{name: transfer, policy: allow, options: {{warm: {warm}, targets: {targets}}}}}]"
        agent = here(tmp_path, text).agent
        sip = SipSettings(listen="192.0.2.1:5060", trusted=("192.0.2.0/24",))
        assert [fault.split()[0] for fault in out_of_reach(agent, sip)] == said
        assert all("PARLEY_SIP__TRUSTED" in fault for fault in out_of_reach(agent, sip))
        assert out_of_reach(agent, SipSettings()) == []
