// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright: Contributors to the nvgrace.passthrough project
 *
 * mmap of the emulated regions, served by faults: vfio-pci-core takes the
 * mappings of all BARs away at every reset, and the next access has to bring
 * them back.
 */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/mm.h>

#include "nvgrace.h"

#define NVGRACE_PGOFF_SHIFT	(VFIO_PCI_OFFSET_SHIFT - PAGE_SHIFT)
#define NVGRACE_PGOFF_MASK	((1UL << NVGRACE_PGOFF_SHIFT) - 1)

/*
 * Waits for a GPU that was reset and has the fault tried again. mmap_lock is
 * given up for the wait where the fault allows that, else the whole process
 * would hang with this thread. The file keeps the device open meanwhile.
 */
static vm_fault_t nvgrace_fault_wait(struct nvgrace_gpu *gpu,
				     struct vm_fault *vmf)
{
	struct mm_struct *mm = vmf->vma->vm_mm;
	struct file *file;

	if (!fault_flag_allow_retry_first(vmf->flags)) {
		/* The first try has waited for this reset: once is enough. */
		if ((vmf->flags & FAULT_FLAG_TRIED) && nvgrace_gave_up(gpu))
			return VM_FAULT_SIGBUS;
		return nvgrace_wait_ready_for_fault(gpu) ? VM_FAULT_SIGBUS :
							   VM_FAULT_NOPAGE;
	}
	if (vmf->flags & FAULT_FLAG_RETRY_NOWAIT)
		return VM_FAULT_RETRY;

	file = get_file(vmf->vma->vm_file);
	mmap_read_unlock(mm);
	/* Without mmap_lock an error can be reported by the second try only. */
	nvgrace_wait_ready_for_fault(gpu);
	fput(file);
	return VM_FAULT_RETRY;
}

/*
 * Where a huge mapping is not possible, be it for the kernel or for the
 * alignment: the rest of what one would have covered. A fault for each page of
 * 95 GiB would take a minute.
 */
static void nvgrace_fault_around(struct vm_fault *vmf, unsigned long pfn)
{
	struct vm_area_struct *vma = vmf->vma;
	unsigned long start = vmf->address & PMD_MASK;
	unsigned long end = min(start + PMD_SIZE, vma->vm_end);
	unsigned long address = max(start, vma->vm_start);

	pfn -= (vmf->address - address) >> PAGE_SHIFT;
	for (; address < end; address += PAGE_SIZE, pfn++)
		if (vmf_insert_pfn(vma, address, pfn) != VM_FAULT_NOPAGE)
			return;
}

/* Needs memory_lock. */
static vm_fault_t nvgrace_insert(struct nvgrace_gpu *gpu, struct vm_fault *vmf,
				 unsigned long pfn, unsigned int order)
{
	vm_fault_t ret;

	ret = nvgrace_insert_pfn(&gpu->core, vmf, pfn, order);
	if (ret != VM_FAULT_NOPAGE)
		return ret;
	if (!order)
		nvgrace_fault_around(vmf, pfn);

	/*
	 * A reset that does not come through VFIO does not take memory_lock,
	 * and its zap may have been before the insertion. Pairs with
	 * nvgrace_reset_begins().
	 */
	smp_mb();
	if (!nvgrace_is_ready(gpu))
		nvgrace_zap(gpu);
	return ret;
}

static vm_fault_t nvgrace_huge_fault(struct vm_fault *vmf, unsigned int order)
{
	struct vm_area_struct *vma = vmf->vma;
	struct nvgrace_bar *bar = vma->vm_private_data;
	struct vfio_pci_core_device *core = &bar->gpu->core;
	unsigned long size = PAGE_SIZE << order;
	unsigned long start = vmf->address & ~(size - 1);
	unsigned long pfn;
	vm_fault_t ret;

	if (order && (start < vma->vm_start || start + size > vma->vm_end))
		return VM_FAULT_FALLBACK;

	pfn = PHYS_PFN(bar->region->base) + (vma->vm_pgoff & NVGRACE_PGOFF_MASK) +
	      ((start - vma->vm_start) >> PAGE_SHIFT);
	if (pfn & ((1UL << order) - 1))
		return VM_FAULT_FALLBACK;

	down_read(&core->memory_lock);
	/* A GPU that sleeps is not waited for: the insertion refuses. */
	if (core->pm_runtime_engaged || nvgrace_is_ready(bar->gpu)) {
		ret = nvgrace_insert(bar->gpu, vmf, pfn, order);
		up_read(&core->memory_lock);
		return ret;
	}
	up_read(&core->memory_lock);

	/* Only the fault for a single page may give up mmap_lock. */
	return order ? VM_FAULT_FALLBACK : nvgrace_fault_wait(bar->gpu, vmf);
}

static vm_fault_t nvgrace_fault(struct vm_fault *vmf)
{
	return nvgrace_huge_fault(vmf, 0);
}

static const struct vm_operations_struct nvgrace_vm_ops = {
	.fault = nvgrace_fault,
#ifdef CONFIG_ARCH_SUPPORTS_HUGE_PFNMAP
	.huge_fault = nvgrace_huge_fault,
#endif
};

/**
 * nvgrace_vma_bar() - the emulated region that a mapping shows
 * @vma: a mapping of a VFIO device, maybe of another region
 *
 * Return: the region, or NULL when vfio-pci-core made the mapping.
 */
struct nvgrace_bar *nvgrace_vma_bar(struct vm_area_struct *vma)
{
	return vma->vm_ops == &nvgrace_vm_ops ? vma->vm_private_data : NULL;
}

/**
 * nvgrace_mmap() - mmap(2) of any region
 * @vdev: the device
 * @vma: the mapping to be
 *
 * Return: 0; -EINVAL for a private mapping and for one that ends after the
 * memory, -EOVERFLOW when its end wraps, -ENOMEM.
 */
int nvgrace_mmap(struct vfio_device *vdev, struct vm_area_struct *vma)
{
	struct nvgrace_bar *bar;
	int ret;

	bar = nvgrace_find_bar(nvgrace_from_vfio(vdev),
			       vma->vm_pgoff >> NVGRACE_PGOFF_SHIFT);
	if (!bar)
		return vfio_pci_core_mmap(vdev, vma);

	/* Copy-on-write of memory without struct page is a BUG in mm. */
	if (!(vma->vm_flags & VM_SHARED))
		return -EINVAL;

	ret = nvgrace_check_mmap(bar->region,
				 (u64)(vma->vm_pgoff & NVGRACE_PGOFF_MASK)
					<< PAGE_SHIFT,
				 vma->vm_end - vma->vm_start);
	if (ret)
		return ret;
	ret = nvgrace_zap_track(bar->gpu, vma);
	if (ret)
		return ret;

	/*
	 * vm_pgoff keeps the region index: zapping at a reset and memory
	 * failure handling find the mapping by it.
	 */
	vma->vm_private_data = bar;
	vm_flags_set(vma, VM_IO | VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP);
	if (bar->region->write_combined) {
		vma->vm_page_prot = pgprot_writecombine(vma->vm_page_prot);
		vm_flags_set(vma, VM_ALLOW_ANY_UNCACHED);
	}
	vma->vm_ops = &nvgrace_vm_ops;
	return 0;
}
