// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright: Contributors to the nvgrace.passthrough project
 *
 * Memory failures. GPU memory has no struct page, so the kernel has to be
 * told which mappings show it; it then sends SIGBUS to their owners.
 * Only built where the kernel has register_pfn_address_space().
 */
#include <linux/fs.h>
#include <linux/mm.h>

#include "nvgrace.h"

static int nvgrace_poison_pgoff(struct vm_area_struct *vma, unsigned long pfn,
				pgoff_t *pgoff)
{
	struct nvgrace_bar *bar = nvgrace_vma_bar(vma);
	unsigned long first, index;

	if (!bar)
		return -EFAULT;
	first = PHYS_PFN(bar->region->base);
	if (pfn < first || pfn - first >= PHYS_PFN(bar->region->mappable))
		return -EFAULT;

	index = bar->region->index;
	*pgoff = (index << (VFIO_PCI_OFFSET_SHIFT - PAGE_SHIFT)) + pfn - first;
	/* mm sends SIGKILL for a page that the mapping does not show. */
	if (*pgoff < vma->vm_pgoff || *pgoff - vma->vm_pgoff >= vma_pages(vma))
		return -EFAULT;
	return 0;
}

static int nvgrace_poison_register_bar(struct nvgrace_bar *bar)
{
	const struct nvgrace_region *region = bar->region;
	struct pfn_address_space *poison = &bar->poison;
	int ret;

	poison->node.start = PHYS_PFN(region->base);
	poison->node.last = poison->node.start + PHYS_PFN(region->mappable) - 1;
	poison->mapping = bar->gpu->core.vdev.inode->i_mapping;
	poison->pfn_to_vma_pgoff = nvgrace_poison_pgoff;

	ret = register_pfn_address_space(poison);
	if (ret == -EOPNOTSUPP)
		return 0;
	bar->poison_registered = !ret;
	return ret;
}

/**
 * nvgrace_poison_register() - announce the memory of a GPU that is opened
 * @gpu: the GPU
 *
 * Return: 0, also on kernels built without CONFIG_MEMORY_FAILURE; -EBUSY when
 * the range overlaps one of another device.
 */
int nvgrace_poison_register(struct nvgrace_gpu *gpu)
{
	u32 i;
	int ret;

	for (i = 0; i < gpu->layout.count; i++) {
		ret = nvgrace_poison_register_bar(&gpu->bar[i]);
		if (ret) {
			nvgrace_poison_unregister(gpu);
			return ret;
		}
	}
	return 0;
}

/**
 * nvgrace_poison_unregister() - opposite of nvgrace_poison_register()
 * @gpu: the GPU
 *
 * The kernel's unregister looks whether the range is registered, by whomever,
 * and then removes the given node: only what was registered here may be
 * unregistered.
 */
void nvgrace_poison_unregister(struct nvgrace_gpu *gpu)
{
	u32 i;

	for (i = 0; i < gpu->layout.count; i++) {
		if (gpu->bar[i].poison_registered)
			unregister_pfn_address_space(&gpu->bar[i].poison);
		gpu->bar[i].poison_registered = false;
	}
}
