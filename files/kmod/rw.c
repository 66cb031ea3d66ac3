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
 * held for the copy. A fault on user memory must not be taken with it held,
 * because that takes mmap_lock, which comes first. So the copy is one that
 * stops at a page that is not there; the page is then served by way of a
 * bounce buffer, which is also what tells a bad address from a page that was
 * only not there yet.
 */
#include <linux/mm.h>
#include <linux/pm_runtime.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "nvgrace.h"

/* What is copied at a time at most: a reset waits for no more. */
#define NVGRACE_CHUNK		SZ_1M

static const u8 nvgrace_hole[SZ_16K] = { [0 ... SZ_16K - 1] = 0xff };

/**
 * struct nvgrace_copy - one read(2) or write(2) of memory
 * @gpu: the GPU
 * @memory: next byte of memory
 * @buf: next byte of user memory
 * @left: bytes to go
 * @iswrite: from @buf to @memory
 */
struct nvgrace_copy {
	struct nvgrace_gpu *gpu;
	u8 *memory;
	char __user *buf;
	size_t left;
	bool iswrite;
};

static void nvgrace_copied(struct nvgrace_copy *copy, size_t count)
{
	copy->memory += count;
	copy->buf += count;
	copy->left -= count;
}

/* Copies what it can of a chunk without a fault. Returns 0 or an error. */
static int nvgrace_copy_direct(struct nvgrace_copy *copy, size_t count)
{
	size_t missing;
	int ret;

	ret = nvgrace_lock_ready(copy->gpu);
	if (ret)
		return ret;
	pagefault_disable();
	missing = copy->iswrite ?
		  __copy_from_user_inatomic(copy->memory, copy->buf, count) :
		  __copy_to_user_inatomic(copy->buf, copy->memory, count);
	pagefault_enable();
	nvgrace_unlock_ready(copy->gpu);

	nvgrace_copied(copy, count - missing);
	return 0;
}

/* Copies the rest of one page of user memory, which may have to be read in. */
static int nvgrace_copy_page(struct nvgrace_copy *copy)
{
	size_t count = min_t(size_t, copy->left,
			     PAGE_SIZE - offset_in_page(copy->buf));
	u8 *bounce;
	int ret;

	bounce = kmalloc(count, GFP_KERNEL);
	if (!bounce)
		return -ENOMEM;

	ret = -EFAULT;
	if (copy->iswrite && copy_from_user(bounce, copy->buf, count))
		goto out;
	ret = nvgrace_lock_ready(copy->gpu);
	if (ret)
		goto out;
	if (copy->iswrite)
		memcpy(copy->memory, bounce, count);
	else
		memcpy(bounce, copy->memory, count);
	nvgrace_unlock_ready(copy->gpu);

	if (!copy->iswrite && copy_to_user(copy->buf, bounce, count))
		ret = -EFAULT;
	else
		nvgrace_copied(copy, count);
out:
	kfree(bounce);
	return ret;
}

/* Between two chunks: let others run, and let a kill end a long access. */
static int nvgrace_breathe(void)
{
	cond_resched();
	return fatal_signal_pending(current) ? -EINTR : 0;
}

static int nvgrace_copy_memory(struct nvgrace_copy *copy)
{
	int ret;

	for (;;) {
		size_t count = min_t(size_t, copy->left, NVGRACE_CHUNK);
		size_t after = copy->left - count;

		ret = nvgrace_copy_direct(copy, count);
		if (!ret && copy->left != after)
			ret = nvgrace_copy_page(copy);
		if (ret || !copy->left)
			return ret;
		ret = nvgrace_breathe();
		if (ret)
			return ret;
	}
}

static int nvgrace_read_hole(char __user *buf, size_t count)
{
	size_t done, chunk;
	int ret;

	for (done = 0; done < count; done += chunk) {
		chunk = min(count - done, sizeof(nvgrace_hole));
		if (copy_to_user(buf + done, nvgrace_hole, chunk))
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

static int nvgrace_rw_memory(struct nvgrace_bar *bar, char __user *buf,
			     u64 offset, size_t count, bool iswrite)
{
	struct nvgrace_copy copy = {
		.gpu = bar->gpu,
		.buf = buf,
		.left = count,
		.iswrite = iswrite,
	};
	u8 *map;
	int ret;

	map = nvgrace_map_memory(bar);
	if (!map)
		return -ENOMEM;
	copy.memory = map + offset;

	ret = nvgrace_power_on(bar->gpu);
	if (ret)
		return ret;
	/* Woken for this access from a sleep that its user has asked for. */
	if (READ_ONCE(bar->gpu->core.pm_runtime_engaged))
		nvgrace_note_reset(bar->gpu);
	ret = nvgrace_copy_memory(&copy);
	pm_runtime_put(&bar->gpu->core.pdev->dev);
	return ret;
}

/**
 * nvgrace_bar_rw() - read(2) and write(2) of an emulated region
 * @bar: the region
 * @buf: where to or where from
 * @count: bytes
 * @ppos: VFIO offset; advanced by the returned count, left alone on errors
 * @iswrite: write(2)
 *
 * Return: bytes done; -EINVAL at or after the reported size; -EFAULT, -ENOMEM,
 * -EINTR when killed; -EIO, -ETIME or -ENODEV when the GPU cannot be used.
 */
ssize_t nvgrace_bar_rw(struct nvgrace_bar *bar, char __user *buf, size_t count,
		       loff_t *ppos, bool iswrite)
{
	u64 offset = *ppos & VFIO_PCI_OFFSET_MASK;
	struct nvgrace_span span;
	int ret;

	ret = nvgrace_span(bar->region, offset, count, &span);
	if (ret)
		return ret;
	if (!access_ok(buf, span.memory + span.hole))
		return -EFAULT;

	/* The hole exists in this driver only: no power, no wait for it. */
	if (span.memory)
		ret = nvgrace_rw_memory(bar, buf, offset, span.memory,
					iswrite);
	if (!ret && span.hole && !iswrite)
		ret = nvgrace_read_hole(buf + span.memory, span.hole);
	if (ret)
		return ret;

	*ppos += span.memory + span.hole;
	return span.memory + span.hole;
}
