/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright: Contributors to the nvgrace.passthrough project
 *
 * What differs between kernels. The NVGRACE_HAVE_* and NVGRACE_OP_* macros
 * come from probe.sh, which looks into the headers of the kernel that is
 * built for: version numbers say little, because stable series and
 * distributions take over parts of newer interfaces.
 */
#ifndef NVGRACE_COMPAT_H
#define NVGRACE_COMPAT_H

#include <linux/mm.h>
#include <linux/pci.h>
#include <linux/vfio_pci_core.h>
#ifdef NVGRACE_HAVE_PFN_ADDRESS_SPACE
#include <linux/memory-failure.h>
#endif
#ifdef NVGRACE_HAVE_PFN_T
#include <linux/pfn_t.h>
#endif

#if !IS_ENABLED(CONFIG_VFIO_PCI_CORE)
#error "this kernel has no CONFIG_VFIO_PCI_CORE, which the driver is a user of"
#endif

#ifndef PCI_VENDOR_ID_CXL
#define PCI_VENDOR_ID_CXL	0x1e98
#endif

#if BITS_PER_LONG != 64
#error "sizes of regions do not fit into this kernel's size_t"
#endif

/* The last physical address that a page table entry can hold. */
static inline u64 nvgrace_last_address(void)
{
#if defined(CONFIG_ARM64)
	return PHYS_MASK;
#elif defined(CONFIG_X86)
	return (1ULL << boot_cpu_data.x86_phys_bits) - 1;
#else
#error "only arm64 and x86 are supported"
#endif
}

/* arm64 only: lets KVM give the guest write-combined access. */
#ifndef NVGRACE_HAVE_ALLOW_ANY_UNCACHED
#define VM_ALLOW_ANY_UNCACHED	VM_NONE
#endif

#ifndef NVGRACE_HAVE_VM_FLAGS_SET
static inline void vm_flags_set(struct vm_area_struct *vma, vm_flags_t flags)
{
	vma->vm_flags |= flags;
}
#endif

/*
 * Whether the user has memory decoding on and the function in D0, as the
 * core sees it. Needs memory_lock and an open device.
 */
static inline bool nvgrace_memory_enabled(struct vfio_pci_core_device *core)
{
#ifdef NVGRACE_HAVE_VMF_INSERT_PFN
	return __vfio_pci_memory_enabled(core);
#else
	u16 command = le16_to_cpup((__le16 *)&core->vconfig[PCI_COMMAND]);

	if ((__force int)core->pdev->current_state >= (__force int)PCI_D3hot)
		return false;
	return core->pdev->no_command_memory || (command & PCI_COMMAND_MEMORY);
#endif
}

/*
 * Maps 2^@order pages at @pfn for a fault. SIGBUS where the core would give
 * one for a BAR: decoding off, or runtime suspended. Needs memory_lock.
 */
#ifdef NVGRACE_HAVE_VMF_INSERT_PFN
#define nvgrace_insert_pfn	vfio_pci_vmf_insert_pfn
#else

#ifdef NVGRACE_HAVE_PFN_T
#define nvgrace_huge_pfn(pfn)	__pfn_to_pfn_t(pfn, PFN_DEV)
#else
#define nvgrace_huge_pfn(pfn)	(pfn)
#endif

static inline vm_fault_t nvgrace_insert_pfn(struct vfio_pci_core_device *core,
					    struct vm_fault *vmf,
					    unsigned long pfn,
					    unsigned int order)
{
	if (core->pm_runtime_engaged || !nvgrace_memory_enabled(core))
		return VM_FAULT_SIGBUS;
	if (!order)
		return vmf_insert_pfn(vmf->vma, vmf->address, pfn);
#ifdef CONFIG_ARCH_SUPPORTS_PMD_PFNMAP
	if (order == PMD_ORDER)
		return vmf_insert_pfn_pmd(vmf, nvgrace_huge_pfn(pfn), false);
#endif
#ifdef CONFIG_ARCH_SUPPORTS_PUD_PFNMAP
	if (order == PUD_ORDER)
		return vmf_insert_pfn_pud(vmf, nvgrace_huge_pfn(pfn), false);
#endif
	return VM_FAULT_FALLBACK;
}
#endif /* NVGRACE_HAVE_VMF_INSERT_PFN */

#endif /* NVGRACE_COMPAT_H */
