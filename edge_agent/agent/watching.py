"""The sampling fallback at work: psutil is imported and a timer turns only while something is to be sampled."""

from __future__ import annotations

from ..host.containment import ENFORCED, SAMPLED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..host.loop import Timer
    from ..host.sampling import Sample, Sampler
    from .performer import Agent

NO_TOTAL = 1 << 62


class Watching:
    """Samples the services whose report says 'sampled', every INTERVAL of ``host.sampling``."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._sampler: Sampler | None = None
        self._timer: Timer | None = None

    def begin(self) -> None:
        """There is something to sample from now on."""
        if self._timer is None:
            from ..host import sampling

            self._timer = self._agent.loop.at(self._agent.loop.now() + sampling.INTERVAL, self._turn)

    def usage(self, name: str) -> Sample | None:
        """The last sample of a service."""
        return None if self._sampler is None else self._sampler.usage.get(name)

    def _turn(self) -> None:
        from ..host import sampling

        agent, self._timer = self._agent, None
        if self._sampler is None:
            self._sampler = sampling.Sampler(agent.containment)
        sampled = [
            unit.service
            for name, unit in agent.node.units.items()
            if unit.pid and any(kind == SAMPLED for kind, _code in agent.reports.get(name, {}).values())
        ]
        held = agent.total_report.get("memory", ("", ""))[0] == ENFORCED
        for event in self._sampler.sample(sampled, NO_TOTAL if held else agent.node.memory):
            agent.emit(event)
        if sampled and not agent.done:
            self.begin()
