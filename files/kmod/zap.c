// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright: Contributors to the nvgrace.passthrough project
 *
 * Taking the user's mappings of the emulated regions away, for a reset and
 * while memory decoding is off.
 *
 * From 6.10 on a VFIO device has an inode and vfio-pci-core takes away
 * whatever is mapped from it, ours too. Before, all VFIO devices share one
 * inode with every other anonymous file, and the core keeps a private list of
 * its own mappings only. There each mapping of an emulated region gets a file
 * of ours, on an inode of the GPU; the file holds the VFIO device open.
 */
#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/mm.h>

#include "nvgrace.h"

#ifdef NVGRACE_HAVE_VFIO_INODE

static struct address_space *nvgrace_mappings(struct nvgrace_gpu *gpu)
{
	return gpu->core.vdev.inode->i_mapping;
}

#else

static int nvgrace_file_release(struct inode *inode, struct file *file)
{
	fput(file->private_data);
	return 0;
}

static const struct file_operations nvgrace_file_ops = {
	.owner = THIS_MODULE,
	.release = nvgrace_file_release,
};

/* The inode of a GPU's mappings, made for the first of them. */
static struct inode *nvgrace_inode(struct nvgrace_gpu *gpu, struct file *vfio)
{
	struct inode *inode;

	mutex_lock(&gpu->map_lock);
	inode = gpu->inode;
	if (!inode) {
		inode = alloc_anon_inode(file_inode(vfio)->i_sb);
		if (!IS_ERR(inode)) {
			/* Pairs with the acquire in nvgrace_mappings(). */
			smp_store_release(&gpu->inode, inode);
		}
	}
	mutex_unlock(&gpu->map_lock);
	return inode;
}

/**
 * nvgrace_zap_exit() - drop what nvgrace_zap_track() needed
 * @gpu: the GPU, which nobody has open or mapped any more
 */
void nvgrace_zap_exit(struct nvgrace_gpu *gpu)
{
	iput(gpu->inode);
	gpu->inode = NULL;
}

/**
 * nvgrace_zap_track() - make a new mapping one that nvgrace_zap() finds
 * @gpu: the GPU
 * @vma: a mapping of it, not linked yet
 *
 * Return: 0, or an error with @vma unchanged.
 */
int nvgrace_zap_track(struct nvgrace_gpu *gpu, struct vm_area_struct *vma)
{
	struct inode *inode;
	struct file *file;

	inode = nvgrace_inode(gpu, vma->vm_file);
	if (IS_ERR(inode))
		return PTR_ERR(inode);
	file = anon_inode_getfile("[nvgrace-gpu]", &nvgrace_file_ops,
				  vma->vm_file, O_RDWR);
	if (IS_ERR(file))
		return PTR_ERR(file);

	/* The mapping holds the VFIO device open, and that the inode. */
	get_file(vma->vm_file);
	file->f_mapping = inode->i_mapping;
	vma_set_file(vma, file);
	fput(file);
	return 0;
}

/**
 * nvgrace_zap_if_off() - what the core does for its own mappings
 * @gpu: an open GPU whose user may just have switched off decoding, put it
 *	into D3hot or let it sleep
 *
 * Whoever touches a mapping afterwards gets SIGBUS from the fault handler,
 * which looks under the same lock.
 */
void nvgrace_zap_if_off(struct nvgrace_gpu *gpu)
{
	struct vfio_pci_core_device *core = &gpu->core;

	down_read(&core->memory_lock);
	if (core->pm_runtime_engaged || !nvgrace_memory_enabled(core))
		nvgrace_zap(gpu);
	up_read(&core->memory_lock);
}

static struct address_space *nvgrace_mappings(struct nvgrace_gpu *gpu)
{
	/* Pairs with the release where the inode is made. */
	struct inode *inode = smp_load_acquire(&gpu->inode);

	return inode ? inode->i_mapping : NULL;
}

#endif /* NVGRACE_HAVE_VFIO_INODE */

/**
 * nvgrace_zap() - take all mappings of the emulated regions away
 * @gpu: the GPU; the next touch of a mapping is a fault
 */
void nvgrace_zap(struct nvgrace_gpu *gpu)
{
	struct address_space *mappings = nvgrace_mappings(gpu);
	u32 i;

	for (i = 0; mappings && i < gpu->layout.count; i++) {
		const struct nvgrace_region *region = &gpu->layout.region[i];

		unmap_mapping_range(mappings,
				    VFIO_PCI_INDEX_TO_OFFSET(region->index),
				    region->mappable, true);
	}
}
