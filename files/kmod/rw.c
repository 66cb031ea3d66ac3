// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright: Contributors to the nvgrace.passthrough project
 *
 * read(2) and write(2) of the emulated regions.
 *
 * An access that begins at or after the reported size is -EINVAL, one that
 * ends after it is clipped. Of the rest, bytes before the actual size are
 * memory; bytes after it read as 0xff and are dropped when written, and count
 * as done either way.
 *
 * Memory must not be touched while the GPU is being reset, so memory_lock is
 * held for the copy; user memory must not be touched with memory_lock held.
 * Hence a bounce buffer, small enough to stay in the cache.
 */
#include <linux/mm.h>
#include <linux/pm_runtime.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "nvgrace.h"

#define NVGRACE_BOUNCE_SIZE	SZ_64K

struct nvgrace_bounce {
	u8 *data;
	size_t size;
};

static int nvgrace_bounce_init(struct nvgrace_bounce *bounce, size_t count)
{
	bounce->size = min_t(size_t, count, NVGRACE_BOUNCE_SIZE);
	bounce->data = kvmalloc(bounce->size, GFP_KERNEL);
	return bounce->data ? 0 : -ENOMEM;
}

/* Between two chunks: let others run, and let a kill end a long access. */
static int nvgrace_breathe(void)
{
	cond_resched();
	return fatal_signal_pending(current) ? -EINTR : 0;
}

static int nvgrace_read_chunk(struct nvgrace_bar *bar, const u8 *memory,
			      u8 *data, size_t count)
{
	unsigned long missing;
	int ret;

	ret = nvgrace_lock_ready(bar->gpu);
	if (ret)
		return ret;
	/* Where the architecture can, poisoned memory is an error, no crash. */
	missing = copy_mc_to_kernel(data, memory, count);
	nvgrace_unlock_ready(bar->gpu);
	return missing ? -EIO : 0;
}

static int nvgrace_write_chunk(struct nvgrace_bar *bar, u8 *memory,
			       const u8 *data, size_t count)
{
	int ret;

	ret = nvgrace_lock_ready(bar->gpu);
	if (ret)
		return ret;
	memcpy(memory, data, count);
	nvgrace_unlock_ready(bar->gpu);
	return 0;
}

static int nvgrace_read_memory(struct nvgrace_bar *bar,
			       struct nvgrace_bounce *bounce, char __user *buf,
			       u64 offset, size_t count)
{
	const u8 *memory = nvgrace_map_memory(bar);
	size_t done, chunk;
	int ret;

	if (!memory)
		return -ENOMEM;

	for (done = 0; done < count; done += chunk) {
		chunk = min(count - done, bounce->size);
		ret = nvgrace_read_chunk(bar, memory + offset + done,
					 bounce->data, chunk);
		if (ret)
			return ret;
		if (copy_to_user(buf + done, bounce->data, chunk))
			return -EFAULT;
		ret = nvgrace_breathe();
		if (ret)
			return ret;
	}
	return 0;
}

static int nvgrace_write_memory(struct nvgrace_bar *bar,
				struct nvgrace_bounce *bounce,
				const char __user *buf, u64 offset,
				size_t count)
{
	u8 *memory = nvgrace_map_memory(bar);
	size_t done, chunk;
	int ret;

	if (!memory)
		return -ENOMEM;

	for (done = 0; done < count; done += chunk) {
		chunk = min(count - done, bounce->size);
		if (copy_from_user(bounce->data, buf + done, chunk))
			return -EFAULT;
		ret = nvgrace_write_chunk(bar, memory + offset + done,
					  bounce->data, chunk);
		if (!ret)
			ret = nvgrace_breathe();
		if (ret)
			return ret;
	}
	return 0;
}

static int nvgrace_read_hole(struct nvgrace_bounce *bounce, char __user *buf,
			     size_t count)
{
	size_t done, chunk;
	int ret;

	memset(bounce->data, 0xff, min(count, bounce->size));
	for (done = 0; done < count; done += chunk) {
		chunk = min(count - done, bounce->size);
		if (copy_to_user(buf + done, bounce->data, chunk))
			return -EFAULT;
		ret = nvgrace_breathe();
		if (ret)
			return ret;
	}
	return 0;
}

static int nvgrace_power_on(struct nvgrace_gpu *gpu)
{
	struct pci_dev *pdev = gpu->core.pdev;
	int ret;

	ret = pm_runtime_resume_and_get(&pdev->dev);
	if (!ret)
		return 0;
	pci_info_ratelimited(pdev, "runtime resume failed: %d\n", ret);
	return -EIO;
}

/**
 * nvgrace_bar_read() - read(2) of an emulated region
 * @bar: the region
 * @buf: where to
 * @count: bytes
 * @ppos: VFIO offset; advanced by the returned count, left alone on errors
 *
 * Return: bytes read; -EINVAL at or after the reported size; -EFAULT, -ENOMEM,
 * -EINTR when killed; -EIO, -ETIME or -ENODEV when the GPU cannot be used.
 */
ssize_t nvgrace_bar_read(struct nvgrace_bar *bar, char __user *buf,
			 size_t count, loff_t *ppos)
{
	u64 offset = *ppos & VFIO_PCI_OFFSET_MASK;
	struct nvgrace_bounce bounce;
	struct nvgrace_span span;
	int ret;

	ret = nvgrace_span(bar->region, offset, count, &span);
	if (ret)
		return ret;
	ret = nvgrace_bounce_init(&bounce, span.memory + span.hole);
	if (ret)
		return ret;

	/* The hole exists in this driver only: no power, no wait for it. */
	if (span.memory) {
		ret = nvgrace_power_on(bar->gpu);
		if (ret)
			goto out;
		ret = nvgrace_read_memory(bar, &bounce, buf, offset,
					  span.memory);
		pm_runtime_put(&bar->gpu->core.pdev->dev);
	}
	if (!ret && span.hole)
		ret = nvgrace_read_hole(&bounce, buf + span.memory, span.hole);
out:
	kvfree(bounce.data);
	if (ret)
		return ret;
	*ppos += span.memory + span.hole;
	return span.memory + span.hole;
}

/**
 * nvgrace_bar_write() - write(2) of an emulated region
 * @bar: the region
 * @buf: where from
 * @count: bytes
 * @ppos: VFIO offset; advanced by the returned count, left alone on errors
 *
 * Return: bytes written or dropped; errors as nvgrace_bar_read().
 */
ssize_t nvgrace_bar_write(struct nvgrace_bar *bar, const char __user *buf,
			  size_t count, loff_t *ppos)
{
	u64 offset = *ppos & VFIO_PCI_OFFSET_MASK;
	struct nvgrace_bounce bounce;
	struct nvgrace_span span;
	int ret;

	ret = nvgrace_span(bar->region, offset, count, &span);
	if (ret)
		return ret;

	if (span.memory) {
		ret = nvgrace_bounce_init(&bounce, span.memory);
		if (ret)
			return ret;
		ret = nvgrace_power_on(bar->gpu);
		if (!ret) {
			ret = nvgrace_write_memory(bar, &bounce, buf, offset,
						   span.memory);
			pm_runtime_put(&bar->gpu->core.pdev->dev);
		}
		kvfree(bounce.data);
		if (ret)
			return ret;
	}
	*ppos += span.memory + span.hole;
	return span.memory + span.hole;
}
