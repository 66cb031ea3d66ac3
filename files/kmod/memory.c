// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright: Contributors to the nvgrace.passthrough project
 *
 * The GPU's coherent memory: where firmware says it is, how it is split into
 * regions, and the kernel's own mapping of it.
 */
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/property.h>

#include "nvgrace.h"

#define NVGRACE_BASE_PROPERTY	"nvidia,gpu-mem-base-pa"
#define NVGRACE_SIZE_PROPERTY	"nvidia,gpu-mem-size"

/* DVSEC of NVIDIA that tells whether the MIG hardware bug is fixed. */
#define NVGRACE_DVSEC_ID	3
#define NVGRACE_DVSEC_STATUS	0xa
#define NVGRACE_MIG_FIXED	BIT(0)

static int nvgrace_read_property(struct pci_dev *pdev, const char *name,
				 u64 *value)
{
	int ret = device_property_read_u64(&pdev->dev, name, value);

	if (ret)
		pci_warn(pdev,
			 "firmware property %s cannot be read (error %d): no coherent memory, acting as plain vfio-pci\n",
			 name, ret);
	return ret;
}

/**
 * nvgrace_find_memory() - ask firmware for the coherent memory
 * @pdev: the GPU
 * @base: its physical address
 * @length: its size in bytes
 *
 * Return: 0; -ENODEV when firmware names no memory, which is normal within a
 * virtual machine and when the link between GPU and CPU is down. A warning
 * has then been printed.
 */
int nvgrace_find_memory(struct pci_dev *pdev, u64 *base, u64 *length)
{
	if (nvgrace_read_property(pdev, NVGRACE_BASE_PROPERTY, base) ||
	    nvgrace_read_property(pdev, NVGRACE_SIZE_PROPERTY, length))
		return -ENODEV;

	if (!*length) {
		pci_warn(pdev,
			 "firmware property %s is 0 (C2C link down): no coherent memory, acting as plain vfio-pci\n",
			 NVGRACE_SIZE_PROPERTY);
		return -ENODEV;
	}
	return 0;
}

/* 1 or 0; -EIO when the function does not answer. */
static int nvgrace_has_mig_bug(struct pci_dev *pdev)
{
	u16 dvsec, status;

	dvsec = pci_find_dvsec_capability(pdev, PCI_VENDOR_ID_NVIDIA,
					  NVGRACE_DVSEC_ID);
	if (!dvsec)
		return 1;

	pci_read_config_word(pdev, dvsec + NVGRACE_DVSEC_STATUS, &status);
	if (PCI_POSSIBLE_ERROR(status)) {
		pci_err(pdev, "config space of the GPU cannot be read\n");
		return -EIO;
	}
	return !(status & NVGRACE_MIG_FIXED);
}

/* A mapping of an address that the processor cannot form shows another one. */
static int nvgrace_refuse_unreachable(struct pci_dev *pdev, u64 base,
				      u64 length)
{
	if (base + (length - 1) <= nvgrace_last_address())
		return 0;

	pci_err(pdev,
		"refusing memory %#llx + %#llx from firmware: it ends after the last address of this processor, %#llx\n",
		base, length, nvgrace_last_address());
	return -EINVAL;
}

/*
 * A mapping of System RAM would succeed and hand the host's own memory to
 * whoever opens the device.
 */
static int nvgrace_refuse_ram(struct pci_dev *pdev, u64 base, u64 length)
{
	if (region_intersects(base, length, IORESOURCE_SYSTEM_RAM,
			      IORES_DESC_NONE) == REGION_DISJOINT)
		return 0;

	pci_err(pdev,
		"refusing memory %#llx + %#llx from firmware: it overlaps System RAM\n",
		base, length);
	return -EINVAL;
}

static void nvgrace_describe(struct pci_dev *pdev,
			     const struct nvgrace_region *region)
{
	pci_info(pdev,
		 "BAR%u: %#llx bytes of coherent memory at %#llx (%s), reported as %#llx\n",
		 region->index, region->actual, region->base,
		 region->write_combined ? "write-combined" : "cacheable",
		 region->reported);
	if (region->mappable != region->actual)
		pci_info(pdev,
			 "BAR%u: the last %#llx bytes are no whole page: read and write reach them, mmap does not\n",
			 region->index, region->actual - region->mappable);
}

/**
 * nvgrace_set_layout() - split the memory into emulated regions
 * @gpu: the GPU
 * @kind: which regions
 * @base: physical address of the memory
 * @length: its size in bytes
 *
 * Return: 0; -EINVAL or -EOVERFLOW when the range cannot be used, -EIO when
 * the function does not answer, after a message that says so.
 */
int nvgrace_set_layout(struct nvgrace_gpu *gpu, enum nvgrace_layout_kind kind,
		       u64 base, u64 length)
{
	struct pci_dev *pdev = gpu->core.pdev;
	struct nvgrace_layout *layout = &gpu->layout;
	int ret, bug;
	u32 i;

	bug = nvgrace_has_mig_bug(pdev);
	if (bug < 0)
		return bug;
	if (kind == NVGRACE_LAYOUT_BAR2)
		ret = nvgrace_layout_bar2(layout, base, length, PAGE_SIZE);
	else
		ret = nvgrace_layout_mainline(layout, base, length, PAGE_SIZE,
					      bug);
	if (ret) {
		pci_err(pdev,
			"refusing memory %#llx + %#llx from firmware: no regions can be made of it (error %d)\n",
			base, length, ret);
		return ret;
	}

	ret = nvgrace_refuse_unreachable(pdev, base, length);
	if (!ret)
		ret = nvgrace_refuse_ram(pdev, base, length);
	if (ret)
		return ret;

	for (i = 0; i < layout->count; i++) {
		gpu->bar[i].gpu = gpu;
		gpu->bar[i].region = &layout->region[i];
		nvgrace_describe(pdev, &layout->region[i]);
	}
	return 0;
}

/**
 * nvgrace_map_memory() - the kernel's mapping of a region's memory
 * @bar: the region
 *
 * Made by the first caller, kept until nvgrace_unmap_memory().
 *
 * Return: the address, or NULL without memory for page tables.
 */
void *nvgrace_map_memory(struct nvgrace_bar *bar)
{
	const struct nvgrace_region *region = bar->region;
	void *map;

	/* Pairs with the release below: all but the first need no lock. */
	map = smp_load_acquire(&bar->kernel_map);
	if (map)
		return map;

	mutex_lock(&bar->gpu->map_lock);
	map = bar->kernel_map;
	if (!map) {
		map = memremap(region->base, region->actual,
			       region->write_combined ? MEMREMAP_WC :
							MEMREMAP_WB);
		/* Pairs with the acquire above: whoever sees it may use it. */
		smp_store_release(&bar->kernel_map, map);
	}
	mutex_unlock(&bar->gpu->map_lock);
	return map;
}

/**
 * nvgrace_unmap_memory() - drop all kernel mappings
 * @gpu: the GPU, which nobody has open any more
 */
void nvgrace_unmap_memory(struct nvgrace_gpu *gpu)
{
	u32 i;

	for (i = 0; i < gpu->layout.count; i++) {
		if (gpu->bar[i].kernel_map)
			memunmap(gpu->bar[i].kernel_map);
		gpu->bar[i].kernel_map = NULL;
	}
}
