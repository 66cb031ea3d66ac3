# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Products, faults and where each GPU of a lab sits: data, and the small sums that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from .errors import UsageError

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
PAGE = 4096
ODD_BYTES = 1000  # what the fault odd-size takes from the size
VENDOR = 0x10DE
FIRST_SLOT = 0x10
MAX_GPUS = 5
# One range per GPU, far above the RAM of the host and apart from each other; QEMU places memory devices in 1 GiB steps.
FIRST_MEMORY_BASE = 8 * GIB
MEMORY_STRIDE = 4 * GIB
HOST_RAM = 4 * GIB
# Inside the host's RAM on every architecture: the firmware claims memory that the kernel already uses.
RANGE_IN_RAM_BASE = {"arm64": 0x60000000, "amd64": 4 * GIB}
# arm64 has 52 address bits at the most, and so have the page tables of amd64.
UNREACHABLE_BASE = 1 << 56
# Debian's kernels are built with NODES_SHIFT=4, and node 0 has the processors.
MAX_INITIATOR_NODES = 15
NODES_PER_GPU = 8


@dataclass(frozen=True)
class Bar:
    """A base address register: its number, the size in bytes behind it, and whether it is 64 bits wide, or else 32."""

    index: int
    size: int
    wide: bool = True


GRACE_HOPPER_BARS = (Bar(0, 16 * MIB),)
GRACE_BLACKWELL_BARS = (Bar(0, 16 * MIB), Bar(2, 32 * MIB))
SMALL_BAR0 = 64 * KIB  # what the fault small-bar0 leaves of it
# PCI class codes without the programming interface.
CLASS_VGA, CLASS_3D, CLASS_AUDIO = 0x0300, 0x0302, 0x0403


@dataclass(frozen=True)
class Product:
    """A GPU as the lab plays it. Sizes are bytes; ``memory`` is the lab's, never a power of two, not the product's.

    Without ``memory`` it is a card with its memory behind a BAR, which no firmware property tells of.
    """

    name: str
    device_id: int
    memory: int = 0
    bars: tuple[Bar, ...] = GRACE_HOPPER_BARS
    # u16 at +0xA of NVIDIA's DVSEC 3; bit 0 set: the MIG hardware bug is fixed. None: no such DVSEC, bug assumed.
    dvsec_flags: int | None = None
    # A CXL Device DVSEC, and no C2C and HBM registers: readiness is told by configuration space.
    cxl: bool = False
    class_code: int = CLASS_3D
    # The function that is on the same card, at the next function number.
    companion: Product | None = None
    only_arch: str | None = None

    def with_small_bar0(self) -> Product:
        """Return the product with a BAR0 that ends before the readiness registers."""
        return replace(self, bars=tuple(replace(bar, size=SMALL_BAR0) if bar.index == 0 else bar for bar in self.bars))


# Not to be asked for on its own.
AUDIO = Product("audio", 0x22BA, bars=(Bar(0, 16 * KIB, wide=False),), class_code=CLASS_AUDIO, only_arch="amd64")
PRODUCTS = {product.name: product for product in (
    Product("gh200-120gb", 0x2342, 2560 * MIB),
    Product("gh200-480gb", 0x2345, 2816 * MIB),
    Product("gh200-144gb", 0x2348, 3328 * MIB),
    Product("gb200", 0x2941, 1280 * MIB, GRACE_BLACKWELL_BARS, dvsec_flags=1),
    Product("gb300", 0x31C2, 1792 * MIB, GRACE_BLACKWELL_BARS, dvsec_flags=1),
    # A stand-in for what comes after Blackwell. The id is not one that a driver lists; the lab does not claim more of
    # it than the DVSEC.
    Product("vera-cxl", 0x3041, 1536 * MIB, GRACE_BLACKWELL_BARS, dvsec_flags=1, cxl=True),
    # Cards of x86 hosts. The BAR before the memory is of the lab's size: an H100's is 128 GiB.
    Product("h100-pcie", 0x2331, bars=(Bar(0, 16 * MIB), Bar(2, 512 * MIB), Bar(4, 32 * MIB)), only_arch="amd64"),
    Product("rtx-audio", 0x26B1, bars=(Bar(0, 16 * MIB, wide=False), Bar(1, 256 * MIB), Bar(3, 32 * MIB)),
            class_code=CLASS_VGA, companion=AUDIO, only_arch="amd64"),
)}
# What a server can play.
FUNCTIONS = {**PRODUCTS, AUDIO.name: AUDIO}


@dataclass(frozen=True)
class Faults:
    """What is wrong with a host and all of its GPUs, or with one of them."""

    no_properties: bool = False
    size_zero: bool = False
    range_in_ram: bool = False
    odd_size: bool = False  # the size is no multiple of a page
    base_in_page: bool = False  # the base is no multiple of a page
    range_wraps: bool = False  # base + size does not fit into 64 bits
    range_unreachable: bool = False  # more address bits than any processor of the lab has
    c2c_down: bool = False
    small_bar0: bool = False  # BAR0 ends before the readiness registers
    ready_after: float | None = None  # seconds after the start and after each reset
    no_iommu: bool = False
    shared_group: bool = False  # the GPUs are functions of one slot, so the kernel puts them into one IOMMU group

    def words(self) -> list[str]:
        """Return the faults in the notation of the command line."""
        words = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value is True:
                words.append(field.name.replace("_", "-"))
            elif value not in (None, False):
                words.append(f"{field.name.replace('_', '-')}={value:g}")
        return words


@dataclass(frozen=True)
class Gpu:
    """One GPU of a lab: PCI slot and function on bus 0, its memory range (bytes), its generic-initiator nodes."""

    index: int
    product: Product
    memory_base: int
    nodes: tuple[int, ...]
    slot: int
    function: int = 0
    # The root port that it is behind; it is the only thing there, and can be taken out while the host runs.
    port: int | None = None
    # The product whose card the function is on, when it is not the GPU itself.
    card: Product | None = None

    @property
    def name(self) -> str:
        """Return what the function is called in the lab: gpu0, or gpu0-audio for what is on the same card."""
        return f"gpu{self.index}-{self.product.name}" if self.card else f"gpu{self.index}"

    @property
    def address(self) -> str:
        """Return the PCI address as the host's kernel writes it."""
        return f"0000:{0 if self.port is None else 1 + self.port:02x}:{self.slot:02x}.{self.function}"

    @property
    def pci_id(self) -> str:
        """Return vendor:device in hexadecimal."""
        return f"{VENDOR:04x}:{self.product.device_id:04x}"


EXCLUSIVE = (("no_properties", "size_zero", "range_in_ram", "odd_size", "base_in_page", "range_wraps",
              "range_unreachable"),
             ("c2c_down", "ready_after", "small_bar0"))
# Faults of the host; the others are of a GPU with coherent memory.
HOST_FAULTS = ("no-iommu", "shared-group")


def fault_names() -> list[str]:
    """Return the faults as the command line names them, with the value that one of them takes."""
    names = [field.name.replace("_", "-") for field in fields(Faults)]
    return [f"{name}=SECONDS" if name == "ready-after" else name for name in names]


def parse_faults(words: Sequence[str]) -> Faults:
    """Parse repeated --fault values. Raises UsageError for an unknown, malformed or contradictory one."""
    known = {field.name.replace("_", "-"): field.name for field in fields(Faults)}
    chosen: dict[str, bool | float] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in known:
            raise UsageError(f"There is no fault {word!r}; the lab knows {', '.join(fault_names())}.")
        if name == "ready-after":
            if not value.isdecimal() or not 0 < int(value) <= 3600:
                raise UsageError(f"The fault {word!r} needs whole seconds from 1 to 3600, as in ready-after=5.")
            chosen[known[name]] = float(value)
        elif value:
            raise UsageError(f"The fault {name} takes no value, and {word!r} gives one.")
        else:
            chosen[known[name]] = True
    for group in EXCLUSIVE:
        both = [name.replace("_", "-") for name in group if name in chosen]
        if len(both) > 1:
            raise UsageError(f"The faults {' and '.join(both)} contradict each other; choose one.")
    return Faults(**chosen)  # type: ignore[arg-type]


def split_faults(words: Sequence[str], gpus: int) -> tuple[Faults, tuple[Faults, ...]]:
    """Parse repeated --fault values, where 1:NAME is a fault of GPU 1 alone.

    Returns the faults of the host and all GPUs, and for each GPU these with its own. Raises UsageError as parse_faults
    does, and for a GPU that the lab does not have or a fault that no GPU has alone.
    """
    common: list[str] = []
    own: dict[int, list[str]] = {}
    for word in words:
        index, colon, fault = word.partition(":")
        if not colon:
            common.append(word)
            continue
        if not index.isdecimal() or int(index) >= gpus:
            raise UsageError(f"The fault {word!r} is for a GPU that the lab does not have: 0 to {gpus - 1} exist.")
        if fault in HOST_FAULTS:
            raise UsageError(f"The fault {fault} is one of the whole host; leave out {index + colon!r}.")
        own.setdefault(int(index), []).append(fault)
    return parse_faults(common), tuple(parse_faults([*common, *own.get(index, [])]) for index in range(gpus))


def find_product(name: str) -> Product:
    """Return a product by its name. Raises UsageError for an unknown one."""
    if name not in PRODUCTS:
        raise UsageError(f"There is no product {name!r}; the lab knows {', '.join(PRODUCTS)}.")
    return PRODUCTS[name]


def check_count(count: int) -> int:
    """Return how many GPUs a host has. Raises UsageError for a count that it cannot hold."""
    if not 1 <= count <= MAX_GPUS:
        raise UsageError(f"A lab has 1 to {MAX_GPUS} GPUs, not {count}.")
    return count


def place_gpus(product: Product, count: int, shared_slot: bool = False, hotplug: bool = False) -> tuple[Gpu, ...]:
    """Return the GPUs of a host: one a slot, all in one, or each behind a root port of its own.

    Raises UsageError for a count that the host cannot hold.
    """
    check_count(count)
    per_gpu = min(NODES_PER_GPU, MAX_INITIATOR_NODES // count) if product.memory else 0
    functions = 2 if product.companion else 1

    def place(index: int) -> tuple[int, int, int | None]:
        if hotplug:
            return 0, 0, index
        return (FIRST_SLOT, index * functions, None) if shared_slot else (FIRST_SLOT + index, 0, None)

    return tuple(
        Gpu(index, product, FIRST_MEMORY_BASE + index * MEMORY_STRIDE,
            tuple(range(1 + index * per_gpu, 1 + (index + 1) * per_gpu)), *place(index))
        for index in range(count)
    )


def all_functions(gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
    """Return every PCI function of the GPUs' cards, a card's GPU first."""
    found: list[Gpu] = []
    for gpu in gpus:
        found.append(gpu)
        if gpu.product.companion:
            found.append(replace(gpu, product=gpu.product.companion, function=gpu.function + 1, nodes=(),
                                 card=gpu.product))
    return tuple(found)


def firmware_memory(gpu: Gpu, faults: Faults, arch: str) -> tuple[int, int] | None:
    """Return (base, size) in bytes as the ACPI properties tell it, or None when there are no properties."""
    if faults.no_properties or not gpu.product.memory:
        return None
    if faults.range_in_ram:
        return RANGE_IN_RAM_BASE[arch], gpu.product.memory
    if faults.odd_size:
        return gpu.memory_base, gpu.product.memory - ODD_BYTES
    if faults.base_in_page:
        # The whole range stays within the memory that exists.
        return gpu.memory_base + PAGE // 2, gpu.product.memory - PAGE
    if faults.range_wraps:
        return (1 << 64) - gpu.product.memory // 2, gpu.product.memory
    if faults.range_unreachable:
        return UNREACHABLE_BASE + gpu.memory_base, gpu.product.memory
    return gpu.memory_base, 0 if faults.size_zero else gpu.product.memory


def node_distance(gpus: Sequence[Gpu], one: int, other: int) -> int:
    """Return the SLIT distance between two nodes: the values seen on Grace hosts."""
    owner = {node: gpu.index for gpu in gpus for node in gpu.nodes}
    if one == other:
        return 10
    if 0 in (one, other):
        return 80
    return 11 if owner[one] == owner[other] else 120
