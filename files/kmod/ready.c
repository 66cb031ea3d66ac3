// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright: Contributors to the nvgrace.passthrough project
 *
 * After a reset the coherent memory must not be touched until the GPU says
 * that it is ready, which takes seconds. Waiters hold no lock: they look at
 * the GPU under memory_lock, which a reset takes for writing, and sleep
 * without it.
 */
#include <linux/io.h>
#include <linux/jiffies.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>

#include "nvgrace.h"

/* BAR0 registers of Hopper and Blackwell; both read 0xff when ready. */
#define NVGRACE_C2C_STATUS	0x1498
#define NVGRACE_HBM_STATUS	0x200bc
#define NVGRACE_STATUS_READY	0xff
#define NVGRACE_BAR0_LENGTH	(NVGRACE_HBM_STATUS + 4)
#define NVGRACE_BAR0_SECONDS	30

/* CXL Device DVSEC of later GPUs: status of the first memory range. */
#define NVGRACE_CXL_DVSEC_ID	0
#define NVGRACE_CXL_STATUS	0x1c
#define NVGRACE_CXL_INFO_VALID	BIT(0)
#define NVGRACE_CXL_ACTIVE	BIT(1)
#define NVGRACE_CXL_INFO_SECONDS 1
#define NVGRACE_CXL_TIMEOUT(s)	(((s) >> 13) & 7)
#define NVGRACE_CXL_TIMEOUT_MAX	4

/* One look at the GPU. */
struct nvgrace_look {
	u32 first;		/* what was read, for the message */
	u32 second;
	unsigned int seconds;	/* how long it may take at most */
};

/* 0, or -EAGAIN: not ready yet. */
static int nvgrace_look_bar0(struct nvgrace_gpu *gpu, struct nvgrace_look *look)
{
	look->seconds = NVGRACE_BAR0_SECONDS;
	look->first = ioread32(gpu->bar0 + NVGRACE_C2C_STATUS);
	look->second = ioread32(gpu->bar0 + NVGRACE_HBM_STATUS);
	if (look->first != NVGRACE_STATUS_READY ||
	    look->second != NVGRACE_STATUS_READY)
		return -EAGAIN;
	return 0;
}

/* 0, -EAGAIN: not ready yet, or -ENODEV: the function does not answer. */
static int nvgrace_look_cxl(struct nvgrace_gpu *gpu, struct nvgrace_look *look)
{
	u32 status, timeout;

	pci_read_config_dword(gpu->core.pdev,
			      gpu->cxl_dvsec + NVGRACE_CXL_STATUS, &status);
	look->first = status;
	look->second = 0;
	look->seconds = NVGRACE_CXL_INFO_SECONDS;
	if (PCI_POSSIBLE_ERROR(status)) {
		pci_err(gpu->core.pdev,
			"the GPU does not answer: its CXL DVSEC reads as all ones\n");
		return -ENODEV;
	}
	if (!(status & NVGRACE_CXL_INFO_VALID))
		return -EAGAIN;
	if (status & NVGRACE_CXL_ACTIVE)
		return 0;

	/* 1, 4, 16, 64 or 256 seconds; higher values are reserved. */
	timeout = min_t(u32, NVGRACE_CXL_TIMEOUT(status),
			NVGRACE_CXL_TIMEOUT_MAX);
	look->seconds = 1U << (2 * timeout);
	return -EAGAIN;
}

static int nvgrace_look(struct nvgrace_gpu *gpu, struct nvgrace_look *look)
{
	/* Pairs with nvgrace_note_reset(): a new count comes with the flag. */
	int resets = atomic_read_acquire(&gpu->resets);
	int ret;

	if (READ_ONCE(gpu->resetting)) {
		*look = (struct nvgrace_look){
			.seconds = NVGRACE_BAR0_SECONDS,
		};
		return -EAGAIN;
	}
	ret = gpu->cxl_dvsec ? nvgrace_look_cxl(gpu, look) :
			       nvgrace_look_bar0(gpu, look);
	if (!ret)
		WRITE_ONCE(gpu->ready_after, resets);
	return ret;
}

static int nvgrace_look_locked(struct nvgrace_gpu *gpu,
			       struct nvgrace_look *look)
{
	if (nvgrace_is_ready(gpu))
		return 0;
	if (!nvgrace_memory_enabled(&gpu->core))
		return -EIO;
	return nvgrace_look(gpu, look);
}

/*
 * For an open device: its user may have switched off the BAR0 registers. The
 * caller has runtime power management keep it awake.
 */
static int nvgrace_look_open(struct nvgrace_gpu *gpu, struct nvgrace_look *look)
{
	int ret;

	if (down_read_killable(&gpu->core.memory_lock))
		return -EINTR;
	ret = nvgrace_look_locked(gpu, look);
	up_read(&gpu->core.memory_lock);
	return ret;
}

/* For a fault, which nothing keeps awake. */
static int nvgrace_look_fault(struct nvgrace_gpu *gpu,
			      struct nvgrace_look *look)
{
	int ret = -EIO;

	if (down_read_killable(&gpu->core.memory_lock))
		return -EINTR;
	if (!gpu->core.pm_runtime_engaged)
		ret = nvgrace_look_locked(gpu, look);
	up_read(&gpu->core.memory_lock);
	return ret;
}

static int nvgrace_wait(struct nvgrace_gpu *gpu,
			int (*look_at)(struct nvgrace_gpu *gpu,
				       struct nvgrace_look *look))
{
	int ret, now, resets = atomic_read(&gpu->resets);
	unsigned long start = jiffies;
	unsigned int seconds = 0;
	struct nvgrace_look look;

	for (;;) {
		ret = look_at(gpu, &look);
		if (ret != -EAGAIN)
			return ret;
		/*
		 * Another reset: the GPU begins anew, and so does its time. So
		 * it does when a CXL device says how long the rest will take.
		 */
		now = atomic_read(&gpu->resets);
		if (now != resets || look.seconds != seconds)
			start = jiffies;
		resets = now;
		seconds = look.seconds;
		if (time_after_eq(jiffies, start + seconds * HZ))
			break;
		schedule_timeout_killable(gpu->cxl_dvsec ? HZ / 10 : HZ);
		if (fatal_signal_pending(current))
			return -EINTR;
	}

	WRITE_ONCE(gpu->gave_up_after, resets);
	if (gpu->cxl_dvsec)
		pci_err(gpu->core.pdev,
			"GPU memory not ready within %u s: CXL DVSEC range status is %#x\n",
			look.seconds, look.first);
	else
		pci_err(gpu->core.pdev,
			"GPU memory not ready within %u s: C2C link status is %#x and HBM training status %#x, both should be %#x\n",
			look.seconds, look.first, look.second,
			NVGRACE_STATUS_READY);
	return -ETIME;
}

/**
 * nvgrace_ready_init() - find the readiness registers and wait at probe
 * @gpu: the GPU, not registered with VFIO yet
 *
 * Return: 0; -ENODEV without the registers; -ETIME, -EINTR, -ENODEV from the
 * wait; an error of pci_enable_device().
 */
int nvgrace_ready_init(struct nvgrace_gpu *gpu)
{
	struct pci_dev *pdev = gpu->core.pdev;
	int ret;

	/* Reset 0 is the one before this driver: not known to be over. */
	gpu->ready_after = -1;
	gpu->gave_up_after = -1;
	gpu->cxl_dvsec = pci_find_dvsec_capability(pdev, PCI_VENDOR_ID_CXL,
						   NVGRACE_CXL_DVSEC_ID);
	if (!gpu->cxl_dvsec) {
		if (pci_resource_len(pdev, 0) < NVGRACE_BAR0_LENGTH ||
		    !(pci_resource_flags(pdev, 0) & IORESOURCE_MEM)) {
			pci_err(pdev,
				"BAR0 is too small for the readiness registers: no GPU of this family\n");
			return -ENODEV;
		}
		gpu->bar0 = pci_iomap(pdev, 0, NVGRACE_BAR0_LENGTH);
		if (!gpu->bar0)
			return -ENOMEM;
	}

	ret = pci_enable_device(pdev);
	if (!ret) {
		ret = nvgrace_wait(gpu, nvgrace_look);
		pci_disable_device(pdev);
	}
	if (ret)
		nvgrace_ready_exit(gpu);
	return ret;
}

/**
 * nvgrace_ready_exit() - opposite of nvgrace_ready_init()
 * @gpu: the GPU
 */
void nvgrace_ready_exit(struct nvgrace_gpu *gpu)
{
	if (gpu->bar0)
		pci_iounmap(gpu->core.pdev, gpu->bar0);
	gpu->bar0 = NULL;
}

/**
 * nvgrace_note_reset() - the GPU was reset
 * @gpu: the GPU
 */
void nvgrace_note_reset(struct nvgrace_gpu *gpu)
{
	atomic_inc_return_release(&gpu->resets);
}

/**
 * nvgrace_reset_begins() - the PCI core is about to reset the function
 * @gpu: the GPU
 *
 * A reset that comes through VFIO holds memory_lock; one that the host's
 * administrator asks for does not, and a read(2) or write(2) that is copying
 * goes on with its chunk. Mappings are taken away in either.
 */
void nvgrace_reset_begins(struct nvgrace_gpu *gpu)
{
	WRITE_ONCE(gpu->resetting, true);
	nvgrace_note_reset(gpu);
	/* Pairs with nvgrace_insert(): one of the two sees the other. */
	smp_mb();
	nvgrace_zap(gpu);
}

/**
 * nvgrace_reset_ends() - opposite of nvgrace_reset_begins()
 * @gpu: the GPU
 */
void nvgrace_reset_ends(struct nvgrace_gpu *gpu)
{
	nvgrace_note_reset(gpu);
	WRITE_ONCE(gpu->resetting, false);
}

/**
 * nvgrace_is_ready() - has the GPU been seen ready since its last reset?
 * @gpu: the GPU; the answer holds for as long as the caller has memory_lock
 */
bool nvgrace_is_ready(struct nvgrace_gpu *gpu)
{
	return READ_ONCE(gpu->ready_after) == atomic_read(&gpu->resets);
}

/**
 * nvgrace_wait_ready_for_fault() - wait until the GPU is ready
 * @gpu: an open GPU; the caller does not have memory_lock
 *
 * Return: 0; -ETIME; -EINTR when killed; -EIO when the user has switched off
 * memory decoding or lets the GPU sleep; -ENODEV when the function does not
 * answer.
 */
int nvgrace_wait_ready_for_fault(struct nvgrace_gpu *gpu)
{
	return nvgrace_wait(gpu, nvgrace_look_fault);
}

/**
 * nvgrace_gave_up() - has a wait timed out since the last reset?
 * @gpu: the GPU
 */
bool nvgrace_gave_up(struct nvgrace_gpu *gpu)
{
	return READ_ONCE(gpu->gave_up_after) == atomic_read(&gpu->resets);
}

/**
 * nvgrace_lock_ready() - take memory_lock for reading, with the GPU ready
 * @gpu: an open GPU that runtime power management keeps awake
 *
 * Until nvgrace_unlock_ready() the GPU is not reset through VFIO. The caller
 * must not touch user memory in between.
 *
 * Return: 0; without the lock, an error of nvgrace_wait_ready_for_fault().
 */
int nvgrace_lock_ready(struct nvgrace_gpu *gpu)
{
	int ret;

	for (;;) {
		if (down_read_killable(&gpu->core.memory_lock))
			return -EINTR;
		if (nvgrace_is_ready(gpu))
			return 0;
		up_read(&gpu->core.memory_lock);

		ret = nvgrace_wait(gpu, nvgrace_look_open);
		if (ret)
			return ret;
	}
}

/**
 * nvgrace_unlock_ready() - opposite of nvgrace_lock_ready()
 * @gpu: the GPU
 */
void nvgrace_unlock_ready(struct nvgrace_gpu *gpu)
{
	up_read(&gpu->core.memory_lock);
}
