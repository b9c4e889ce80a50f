"""Run by edge-agent's own interpreter: seconds for each part of planning one profile, imports left out, as JSON."""

from __future__ import annotations

import json
import os
import sys
import time

from edge_agent import codec
from edge_agent.budget import compile_plan
from edge_agent.host.facts import gather
from edge_agent.profile import load
from edge_agent.profile.directories import find

directories = find(os.environ, os.getuid())
facts = gather(data_dir=directories.data)
marks = [time.perf_counter()]
profile = load(config=sys.argv[1], name=None, flags={}, environ=os.environ, directories=directories)
marks.append(time.perf_counter())
plan = compile_plan(profile, facts)
marks.append(time.perf_counter())
packed = codec.pack_plan(plan)
marks.append(time.perf_counter())
codec.unpack_plan(packed)
marks.append(time.perf_counter())
names = ("load", "compile", "pack", "unpack")
print(json.dumps({name: after - before for name, before, after in zip(names, marks, marks[1:], strict=False)}))
