"""What a service measures, and that it fits into the frames it travels in."""

from __future__ import annotations

from pathlib import Path

from edge_agent.peers.wire import pack, unpack
from edge_agent.services import metrics


def test_a_family_of_several_samples_survives_the_wire() -> None:
    several = metrics.Metric("a_total", metrics.COUNTER, "A.", (({"by": "x"}, 1), ({"by": "y"}, 2.5)))
    told = unpack(pack({"metrics": [several, metrics.gauge("b_bytes", "B.", 3)]}), 4096)["metrics"]
    assert told == [
        ["a_total", "counter", "A.", [[{"by": "x"}, 1], [{"by": "y"}, 2.5]]],
        ["b_bytes", "gauge", "B.", [[{}, 3]]],
    ]


def test_the_proportional_set_size_is_read_in_bytes(tmp_path: Path) -> None:
    rollup = tmp_path / "smaps_rollup"
    rollup.write_text("0000 rollup\nRss:  99 kB\nPss:  12 kB\nPss_Dirty: 1 kB\n")
    assert metrics.own_pss(str(rollup)) == 12 * 1024
    assert metrics.own_pss(str(tmp_path / "none")) is None
