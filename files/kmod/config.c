// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright: Contributors to the nvgrace.passthrough project
 *
 * PCI config space with the BAR registers of the emulated regions. An access
 * is cut into pieces that lie within one emulated BAR or outside of all; the
 * latter go to vfio-pci-core. So one access may touch any number of BARs, and
 * nothing of it is lost.
 */
#include <linux/uaccess.h>

#include "nvgrace.h"

static int nvgrace_read_bar_register(struct nvgrace_bar *bar, u64 position,
				     char __user *buf, u32 count)
{
	u32 first = position - nvgrace_bar_position(bar->region);
	u8 bytes[NVGRACE_BAR_BYTES];
	u64 stored;

	spin_lock(&bar->gpu->bar_lock);
	stored = bar->stored;
	spin_unlock(&bar->gpu->bar_lock);

	nvgrace_bar_get(nvgrace_bar_value(bar->region, stored), first, bytes,
			count);
	return copy_to_user(buf, bytes, count) ? -EFAULT : 0;
}

static int nvgrace_write_bar_register(struct nvgrace_bar *bar, u64 position,
				      const char __user *buf, u32 count)
{
	u32 first = position - nvgrace_bar_position(bar->region);
	u8 bytes[NVGRACE_BAR_BYTES];

	if (copy_from_user(bytes, buf, count))
		return -EFAULT;

	spin_lock(&bar->gpu->bar_lock);
	bar->stored = nvgrace_bar_set(bar->stored, first, bytes, count);
	spin_unlock(&bar->gpu->bar_lock);
	return 0;
}

/* Serves [@pos, @pos + @count), a piece as nvgrace_config_piece() makes it. */
static ssize_t nvgrace_config_rw_piece(struct nvgrace_gpu *gpu, u32 which,
				       char __user *buf, size_t count,
				       loff_t pos, bool iswrite)
{
	u64 position = pos & VFIO_PCI_OFFSET_MASK;
	int ret;

	if (which == gpu->layout.count)
		return nvgrace_core_rw(gpu, buf, count, &pos, iswrite);

	ret = iswrite ?
	      nvgrace_write_bar_register(&gpu->bar[which], position, buf,
					 count) :
	      nvgrace_read_bar_register(&gpu->bar[which], position, buf, count);
	return ret ? ret : count;
}

/* After a write that may have changed power state or decoding. */
static void nvgrace_config_written(struct nvgrace_gpu *gpu, pci_power_t before)
{
	/* Leaving D3hot may have reset the function. */
	if (gpu->core.pdev->current_state != before)
		nvgrace_note_reset(gpu);
	nvgrace_zap_if_off(gpu);
}

/**
 * nvgrace_config_rw() - read(2) and write(2) of the config region
 * @gpu: the GPU
 * @buf: where to or where from
 * @count: bytes
 * @ppos: VFIO offset; advanced by the returned count, left alone on errors
 * @iswrite: write(2)
 *
 * Return: bytes done, or an error as vfio_pci_core_read() and _write().
 */
ssize_t nvgrace_config_rw(struct nvgrace_gpu *gpu, char __user *buf,
			  size_t count, loff_t *ppos, bool iswrite)
{
	u64 position = *ppos & VFIO_PCI_OFFSET_MASK;
	pci_power_t power = gpu->core.pdev->current_state;
	size_t done = 0;
	int error = 0;

	/* As the core does, before anything is done. */
	if (position >= gpu->core.pdev->cfg_size ||
	    count > gpu->core.pdev->cfg_size - position)
		return -EFAULT;

	while (done < count) {
		loff_t pos = *ppos + done;
		size_t piece;
		ssize_t ret;
		u32 which;

		piece = nvgrace_config_piece(&gpu->layout,
					     pos & VFIO_PCI_OFFSET_MASK,
					     count - done, &which);
		ret = nvgrace_config_rw_piece(gpu, which, buf + done, piece,
					      pos, iswrite);
		if (ret < 0) {
			error = ret;
			break;
		}
		done += ret;
		if (ret != piece)
			break;
	}
	if (iswrite)
		nvgrace_config_written(gpu, power);
	if (error)
		return error;
	*ppos += done;
	return done;
}

/**
 * nvgrace_config_reset() - forget what was written to the emulated BARs
 * @gpu: the GPU, which was opened or reset by its user
 */
void nvgrace_config_reset(struct nvgrace_gpu *gpu)
{
	u32 i;

	spin_lock(&gpu->bar_lock);
	for (i = 0; i < gpu->layout.count; i++)
		gpu->bar[i].stored = 0;
	spin_unlock(&gpu->bar_lock);
}
