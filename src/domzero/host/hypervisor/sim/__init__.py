"""A hypervisor without processes, for people who test programs against the API.

A simulated domain starts at once, never runs anything, and behaves as its `MachineSpec.faults` say. Everything follows
the clock that the simulator is given, so the same calls give the same answers, events and figures every time.

The keys below stand in the virtual machine's `other_config` (with the prefix `sim:`) and count from the next start or
restore; `true` and `1` mean yes, `false`, `0` and the empty text no. A key that is not in the table makes the start
fail, so that a misspelt fault is noticed. `<verb>` is one of start, restore, save, dump-core, keep-crashed, pause,
unpause, shutdown, destroy, plug-disk, unplug-disk, change-medium, switch-disk, resize-disk, limit-disk, pull-layer,
plug-nic, unplug-nic, memory, vcpus, schedule, sysrq, trigger. A `pull-layer` or `dump-core` with a delay reports its
progress in tenths.

| key                  | value   | what it does |
|----------------------|---------|--------------|
| `sim:delay-<verb>`   | seconds | the verb takes that long |
| `sim:fail-<verb>`    | text    | the verb fails with this text, after its delay |
| `sim:step`           | yes/no  | every verb waits until `SimHypervisor.step` lets it go on |
| `sim:ignore-shutdown`| yes/no  | the guest ignores the power button |
| `sim:shutdown-delay` | seconds | the guest takes that long to power off when asked |
| `sim:shutdown-after` | seconds | the guest powers itself off after running that long |
| `sim:reboot-after`   | seconds | the guest reboots itself after running that long |
| `sim:crash-after`    | seconds | the guest crashes after running that long |
| `sim:ignore-unplug`  | yes/no  | the guest does not answer when a device is to be unplugged |
| `sim:ignore-balloon` | yes/no  | the guest does not follow a new memory target |
| `sim:cpu-load`       | 0 … 1   | the part of a processor that each virtual processor uses (0.02) |
| `sim:read-rate`      | bytes/s | what the guest reads from each disk (4096) |
| `sim:write-rate`     | bytes/s | what the guest writes to each writable disk (1024) |

A disk that is limited reads no more bytes than its limit says, and writes no more. A guest's time runs only while its
domain is running. Alt-SysRq c crashes the guest, b reboots it and o powers it off; the other keys do nothing. The
triggers `power` and `reset` act as the buttons do, `nmi` and `sleep` do nothing.

A domain's screen shows coloured bars; its serial line says whose it is and echoes what is typed. Both are served from
the first time that somebody asks for the domain's consoles, until it ends.
"""

from domzero.host.hypervisor.sim.driver import SimHypervisor
from domzero.host.hypervisor.sim.faults import FAULTS, VERBS, FaultRow
from domzero.host.hypervisor.sim.gate import WaitingVerb

__all__ = ["FAULTS", "VERBS", "FaultRow", "SimHypervisor", "WaitingVerb"]
