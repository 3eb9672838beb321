"""What every toolstack function is handed: the database, the gates, this host's hands, and the settings.

Functions that carry out messages look like this, with the model's parameter names:

    @implements("VM.start")
    async def start(stack: Stack, context: Context, vm: Ref, start_paused: bool, force: bool) -> None: ...

`stack` is the same object for all calls; `context` belongs to one call (who asks, which task).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from domzero.engine.audit import Audit
from domzero.engine.audit_file import AuditFile
from domzero.engine.referrers import Referrers
from domzero.idl.types import Ref
from domzero.toolstack.network.networking import Networking
from domzero.toolstack.network.remote_access import NoRemoteAccess, RemoteAccess
from domzero.toolstack.rrd.archives import Archives
from domzero.toolstack.rrd.owners import make_archives
from domzero.toolstack.storage.merge_register import MergeRegister
from domzero.toolstack.storage.shared_work import SharedWork
from domzero.toolstack.vm.memory_ledger import MemoryLedger
from domzero.toolstack.xenstore.guests import Guests

if TYPE_CHECKING:
    from domzero.engine.admission import Gate
    from domzero.engine.clock import Clock
    from domzero.engine.context import Contexts
    from domzero.engine.database import Database
    from domzero.engine.events import Events
    from domzero.engine.sessions import Sessions
    from domzero.engine.tasks import Tasks
    from domzero.host.bootloader.protocol import DiskLoader
    from domzero.host.compression.protocol import Compression
    from domzero.host.contents.protocol import DiskContents
    from domzero.host.control.protocol import HostControl
    from domzero.host.diagnosis.protocol import Diagnosis
    from domzero.host.download.protocol import Download
    from domzero.host.hypervisor.protocol import Hypervisor
    from domzero.host.metrics.protocol import HostFacts
    from domzero.host.network.protocol import NetworkBackend
    from domzero.host.plugins.protocol import Plugins
    from domzero.host.storage.protocol import StorageDriver
    from domzero.host.updates.protocol import Updates
    from domzero.host.upload.protocol import Upload
    from domzero.toolstack.vm.machines import Machines


@dataclass(frozen=True, slots=True)
class StackSettings:
    """What the operator decided, as far as the toolstack cares."""

    state_dir: Path
    """Database, default storage repository, logs: everything that lasts."""
    version: str
    """domzero's own version."""
    address: str = "127.0.0.1"
    """The management address other machines reach this host by."""
    allow_power_off: bool = False
    """Whether `host.shutdown` and `host.reboot` may really end the machine."""
    has_host_console: bool = False
    """Whether the control domain has consoles: those of the host itself."""
    manage_interfaces: frozenset[str] | None = frozenset()
    """The host's own interfaces that domzero may configure; None stands for all."""
    management_probation: float = 60.0
    """Seconds in which a change of the management interface must prove itself."""
    guest_kernel: Path | None = None
    guest_ramdisk: Path | None = None
    """The Tiny Linux kernel and initial RAM disk; None leaves that template out."""
    guest_tools: Path | None = None
    """The disc with the guest tools; None where it has not been made."""
    crash_dir: Path | None = None
    """Where the host's kernel leaves what it held when it crashed; None where nobody is to look."""


@dataclass(slots=True)
class Stack:
    """Everything a toolstack function may need. Built once by the composition root."""

    database: Database
    events: Events
    clock: Clock
    hypervisor: Hypervisor
    storage: Mapping[str, StorageDriver]
    """SR type → driver."""
    contents: DiskContents
    network: NetworkBackend
    control: HostControl
    facts: HostFacts
    download: Download
    settings: StackSettings
    restart: Callable[[], None]
    """Asks the composition root to stop and start the daemon once the calls under way are answered."""
    stop: Callable[[], None]
    """Asks it to stop."""
    gates: dict[str, Gate] = field(default_factory=dict)
    """Class → gate, for every class that has operations."""
    host: Ref = ""
    """This machine's host object."""
    pool: Ref = ""
    authority: str = ""
    """Host and port under which this host's pages are reached, as they stand in an https address."""
    compression: Compression = field(init=False)
    """Packs and unpacks archives. This and the rest up to `methods` are set by the composition root."""
    tasks: Tasks = field(init=False)
    sessions: Sessions = field(init=False)
    contexts: Contexts = field(init=False)
    """Makes contexts for what the host does of its own accord."""
    machines: Machines = field(init=False)
    """The owners of the running domains."""
    methods: Callable[[], tuple[str, ...]] = field(init=False)
    """Every method name the server answers to."""
    updates: Updates = field(init=False)
    """Takes new versions of domzero; set by the composition root."""
    disk_loader: DiskLoader | None = None
    """Finds kernels on machines' disks; None where disks hold nothing, and firmware is said to boot them all."""
    plugins: Plugins = field(init=False)
    """Programs of the operator's; set by the composition root."""
    upload: Upload = field(init=False)
    """Sends files to other machines; set by the composition root."""
    remote: RemoteAccess = field(default_factory=NoRemoteAccess)
    """The doors for callers from outside; set by the composition root."""
    diagnosis: Diagnosis = field(init=False)
    """What a report tells of the machine; set by the composition root."""
    hold_changes: Callable[[bool], None] = field(default=lambda _held: None)
    """Tells whether calls that change something are to be refused; set by the composition root."""
    audit: AuditFile = field(init=False)
    """Who called what."""
    auditor: Audit = field(init=False)
    """Whom to tell of calls."""
    networking: Networking = field(init=False)
    """The plan of this host's network, and the lock on it."""
    archives: Archives = field(init=False)
    """What is measured, and was."""
    guests: Guests = field(init=False)
    """What the store tells the guests, and they say; without a store until the composition root opens it."""
    memory: MemoryLedger = field(init=False)
    image_users: Referrers = field(init=False)
    """The machines that refer to an image of saved memory."""
    scans: SharedWork = field(default_factory=SharedWork)
    """Looks at repositories, shared by all who ask for one at the same time."""
    measurements: SharedWork = field(default_factory=SharedWork)
    """The same for their sizes."""
    plugs: SharedWork = field(default_factory=SharedWork)
    """The same for attaching media: a driver is not asked twice at once."""
    patches_in_use: set[Ref] = field(default_factory=set)
    """The patches that are being installed, cleaned or destroyed."""
    merges: MergeRegister = field(default_factory=MergeRegister)
    """The merges of disks' layers that go on."""

    def __post_init__(self) -> None:
        self.audit = AuditFile(self.settings.state_dir / "log" / "audit.log")
        self.auditor = Audit(self.database, self.clock, self.audit.write)
        self.networking = Networking(self)
        self.archives = make_archives(self.database, self.clock, self.settings.state_dir)
        self.guests = Guests(self)
        self.memory = MemoryLedger(self.database)
        self.image_users = Referrers(self.database, "VM", "suspend_VDI")
