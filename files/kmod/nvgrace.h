/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright: Contributors to the nvgrace.passthrough project
 *
 * What the source files of the driver share.
 */
#ifndef NVGRACE_H
#define NVGRACE_H

#include <linux/atomic.h>
#include <linux/errno.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/vfio.h>
#include <linux/vfio_pci_core.h>

#include "compat.h"
#include "region.h"

struct nvgrace_gpu;

/**
 * struct nvgrace_bar - run-time state of one emulated BAR
 * @gpu: the GPU it belongs to
 * @region: its constant description, within @gpu->layout
 * @stored: what was last written to its BAR registers; @gpu->bar_lock
 * @kernel_map: the kernel's mapping for read and write, made by the first of
 *	them and kept until close; set under @gpu->map_lock
 * @poison: registration for memory failures of this range
 * @poison_registered: @poison is registered
 */
struct nvgrace_bar {
	struct nvgrace_gpu *gpu;
	const struct nvgrace_region *region;
	u64 stored;
	void *kernel_map;
#ifdef NVGRACE_HAVE_PFN_ADDRESS_SPACE
	struct pfn_address_space poison;
	bool poison_registered;
#endif
};

/**
 * struct nvgrace_gpu - one GPU
 * @core: vfio-pci-core's device; has to be the first member
 * @layout: the emulated regions; none for a GPU without coherent memory,
 *	which is served by vfio-pci-core alone
 * @bar: run-time state of the regions of @layout
 * @bar_lock: for the stored BAR registers
 * @map_lock: makes the first of several concurrent accesses create the
 *	kernel mapping, and the first of several mmaps @inode
 * @bar0: the registers that tell when the GPU is ready, NULL with a CXL
 *	Device DVSEC
 * @cxl_dvsec: config space position of the CXL Device DVSEC, or 0
 * @resetting: a reset of the function has begun and has not ended
 * @inode: of all mappings, on kernels where a VFIO device has none; NULL
 *	before the first
 * @resets: changes with every reset; the other two are compared with it
 * @ready_after: value of @resets for which the GPU was last seen ready
 * @gave_up_after: value of @resets for which a wait last ended in -ETIME
 *
 * Locks nest in this order: mmap_lock, then core.memory_lock, then the
 * i_mmap_rwsem that nvgrace_zap() takes; @map_lock within mmap_lock only. User
 * memory is never touched with core.memory_lock held, because a fault on it
 * takes mmap_lock.
 */
struct nvgrace_gpu {
	struct vfio_pci_core_device core;
	struct nvgrace_layout layout;
	struct nvgrace_bar bar[NVGRACE_MAX_REGIONS];
	/* protects bar[].stored */
	spinlock_t bar_lock;
	/* protects bar[].kernel_map and inode while they are made */
	struct mutex map_lock;
	void __iomem *bar0;
	u16 cxl_dvsec;
	bool resetting;
#ifndef NVGRACE_HAVE_VFIO_INODE
	struct inode *inode;
#endif
	atomic_t resets;
	int ready_after;
	int gave_up_after;
};

static inline struct nvgrace_gpu *nvgrace_from_vfio(struct vfio_device *vdev)
{
	return container_of(vdev, struct nvgrace_gpu, core.vdev);
}

/* The emulated BAR with that VFIO region index, or NULL. */
static inline struct nvgrace_bar *nvgrace_find_bar(struct nvgrace_gpu *gpu,
						   u64 index)
{
	u32 i;

	for (i = 0; i < gpu->layout.count; i++)
		if (gpu->layout.region[i].index == index)
			return &gpu->bar[i];
	return NULL;
}

/* What is not emulated. Never writes to @buf for a write(2). */
static inline ssize_t nvgrace_core_rw(struct nvgrace_gpu *gpu,
				      char __user *buf, size_t count,
				      loff_t *ppos, bool iswrite)
{
	struct vfio_device *vdev = &gpu->core.vdev;

	return iswrite ? vfio_pci_core_write(vdev, buf, count, ppos) :
			 vfio_pci_core_read(vdev, buf, count, ppos);
}

/* memory.c */
enum nvgrace_layout_kind {
	NVGRACE_LAYOUT_MAINLINE,
	NVGRACE_LAYOUT_BAR2,
};

int nvgrace_find_memory(struct pci_dev *pdev, u64 *base, u64 *length);
int nvgrace_set_layout(struct nvgrace_gpu *gpu, enum nvgrace_layout_kind kind,
		       u64 base, u64 length);
void *nvgrace_map_memory(struct nvgrace_bar *bar);
void nvgrace_unmap_memory(struct nvgrace_gpu *gpu);

/* info.c */
int nvgrace_region_info(struct vfio_device *vdev, struct vfio_region_info *info,
			struct vfio_info_cap *caps);
long nvgrace_region_info_ioctl(struct vfio_device *vdev, unsigned long arg);

/* rw.c */
ssize_t nvgrace_bar_rw(struct nvgrace_bar *bar, char __user *buf, size_t count,
		       loff_t *ppos, bool iswrite);

/* config.c */
ssize_t nvgrace_config_rw(struct nvgrace_gpu *gpu, char __user *buf,
			  size_t count, loff_t *ppos, bool iswrite);
void nvgrace_config_reset(struct nvgrace_gpu *gpu);

/* mmap.c */
int nvgrace_mmap(struct vfio_device *vdev, struct vm_area_struct *vma);
struct nvgrace_bar *nvgrace_vma_bar(struct vm_area_struct *vma);

/* ready.c */
int nvgrace_ready_init(struct nvgrace_gpu *gpu);
void nvgrace_ready_exit(struct nvgrace_gpu *gpu);
void nvgrace_note_reset(struct nvgrace_gpu *gpu);
void nvgrace_reset_begins(struct nvgrace_gpu *gpu);
void nvgrace_reset_ends(struct nvgrace_gpu *gpu);
bool nvgrace_is_ready(struct nvgrace_gpu *gpu);
int nvgrace_wait_ready_for_fault(struct nvgrace_gpu *gpu);
bool nvgrace_gave_up(struct nvgrace_gpu *gpu);
int nvgrace_lock_ready(struct nvgrace_gpu *gpu);
void nvgrace_unlock_ready(struct nvgrace_gpu *gpu);

/* zap.c */
void nvgrace_zap(struct nvgrace_gpu *gpu);
#ifdef NVGRACE_HAVE_VFIO_INODE
static inline void nvgrace_zap_exit(struct nvgrace_gpu *gpu)
{
}

static inline int nvgrace_zap_track(struct nvgrace_gpu *gpu,
				    struct vm_area_struct *vma)
{
	return 0;
}

static inline void nvgrace_zap_if_off(struct nvgrace_gpu *gpu)
{
}
#else
void nvgrace_zap_exit(struct nvgrace_gpu *gpu);
int nvgrace_zap_track(struct nvgrace_gpu *gpu, struct vm_area_struct *vma);
void nvgrace_zap_if_off(struct nvgrace_gpu *gpu);
#endif

/* poison.c */
#ifdef NVGRACE_HAVE_PFN_ADDRESS_SPACE
int nvgrace_poison_register(struct nvgrace_gpu *gpu);
void nvgrace_poison_unregister(struct nvgrace_gpu *gpu);
#else
static inline int nvgrace_poison_register(struct nvgrace_gpu *gpu)
{
	return 0;
}

static inline void nvgrace_poison_unregister(struct nvgrace_gpu *gpu)
{
}
#endif

#endif /* NVGRACE_H */
