"""An agent who calls: what its file says of that, for the phone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from bot.agents import Agent, LeaveMessage, SilencePrompt
from bot.answering import Answering
from bot.calls import Calls
from bot.engine_process import Engine
from bot.ingress.sip.destinations import NotCallable
from bot.ingress.sip.ingress import LiveCall
from bot.ingress.sip.leg import SipLeg
from bot.ingress.sip.phone import Phone
from bot.ingress.sip.placed import MachinePolicy
from bot.ingress.sip.placing import Placing
from bot.ingress.sip.warm import Admit
from bot.settings import Settings
from bot.variables import filled, left_open
from pipeline.memory.placed import PlacedStore

# Of silence after a message, and the line is hung up; it covers the wait for the engine.
AFTER_MESSAGE_S = 3.0


@dataclass(frozen=True)
class AgentCaller:
    """``placing.Caller`` by what an agent's file says."""

    answering: Answering
    admit: Admit  # whoever its calls are put through to

    @property
    def may_call(self) -> tuple[str, ...]:
        """``Caller``."""
        return self.answering.agent.may_call

    @property
    def where(self) -> str:
        """``Caller``."""
        return f"may_call of the agent {self.answering.agent.base}"

    @property
    def machine(self) -> MachinePolicy:
        """``PhoneCaller``."""
        said = self.answering.agent.answering_machine
        if isinstance(said, LeaveMessage):
            return MachinePolicy(listen=True, message=said.leave_message)
        return MachinePolicy(listen=said == "hang_up")

    def call(self, leg: SipLeg) -> LiveCall:
        """``PhoneCaller``."""
        return self.answering.phone_call(leg, self.admit, ours=True)

    def message(self, leg: SipLeg, words: str) -> LiveCall:
        """``PhoneCaller``: the agent greets with the words, and hangs up on the silence that follows."""
        quiet = SilencePrompt(say=words, after_s=AFTER_MESSAGE_S, times=0, hang_up=True)
        agent = self.answering.agent.model_copy(update={"greeting": words, "silence": quiet})
        return replace(self.answering, agent=agent).phone_call(leg, self.admit, ours=True, deaf=True)


def caller(here: Answering, values: Mapping[str, str], admit: Admit) -> AgentCaller:
    """``here`` as one who calls, what its words leave open filled in; ``admit``: ``Answering.phone_call``.

    Raises ``NotCallable`` for what is still left open, and for a value that nothing asks for.
    """
    agent = here.agent
    machine = agent.answering_machine
    message = machine.leave_message if isinstance(machine, LeaveMessage) else ""
    names = left_open(agent.instructions, agent.greeting, message)
    if missing := names - values.keys():
        raise NotCallable("variables", f"The agent {agent.base} asks for {_list(missing)}.")
    if unknown := values.keys() - names:
        raise NotCallable("variables", f"The agent {agent.base} does not ask for {_list(unknown)}.")
    return AgentCaller(replace(here, agent=_filled(agent, message, values)), admit)


def placing_for(
    settings: Settings,
    engine: Engine,
    placed: PlacedStore,
    answering_of: Callable[[str], Answering | None],
    calls: Calls,
    phone: Phone,
) -> Placing:
    """The placing of calls as those agents, ``answering_of`` by their names; None: there is none."""

    def caller_of(name: str, values: Mapping[str, str]) -> AgentCaller:
        here = answering_of(name)
        if here is None:
            raise NotCallable("agent", "There is no such agent here.")
        return caller(here, values, calls.admit)

    return Placing(settings.sip, calls, phone, caller_of, lambda: engine.status.ready, placed)


def _filled(agent: Agent, message: str, values: Mapping[str, str]) -> Agent:
    update: dict[str, object] = {
        "instructions": filled(agent.instructions, values),
        "greeting": filled(agent.greeting, values),
    }
    if message:
        update["answering_machine"] = LeaveMessage(leave_message=filled(message, values))
    return agent.model_copy(update=update)


def _list(names: set[str]) -> str:
    return ", ".join(sorted(names))
