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
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/mount.h>
#include <linux/pseudo_fs.h>

#include "nvgrace.h"

#ifdef NVGRACE_HAVE_VFIO_INODE

static struct address_space *nvgrace_mappings(struct nvgrace_gpu *gpu)
{
	return gpu->core.vdev.inode->i_mapping;
}

#else

/* No owner: a mount would keep the module from being removed. */
static int nvgrace_init_fs_context(struct fs_context *context)
{
	return init_pseudo(context, 0x6e766772) ? 0 : -ENOMEM;
}

static struct file_system_type nvgrace_fs = {
	.name = KBUILD_MODNAME,
	.init_fs_context = nvgrace_init_fs_context,
	.kill_sb = kill_anon_super,
};

static struct vfsmount *nvgrace_mount;

static int nvgrace_file_release(struct inode *inode, struct file *file)
{
	fput(file->private_data);
	return 0;
}

/* No owner: the VFIO device is open for longer, and holds the module. */
static const struct file_operations nvgrace_file_ops = {
	.release = nvgrace_file_release,
};

/**
 * nvgrace_zap_module_init() - what all GPUs share
 *
 * Return: 0 or an error of kern_mount().
 */
int nvgrace_zap_module_init(void)
{
	nvgrace_mount = kern_mount(&nvgrace_fs);
	return PTR_ERR_OR_ZERO(nvgrace_mount);
}

/**
 * nvgrace_zap_module_exit() - opposite of nvgrace_zap_module_init()
 */
void nvgrace_zap_module_exit(void)
{
	kern_unmount(nvgrace_mount);
}

/**
 * nvgrace_zap_init() - make the inode of a GPU's mappings
 * @gpu: the GPU
 *
 * Return: 0 or -ENOMEM.
 */
int nvgrace_zap_init(struct nvgrace_gpu *gpu)
{
	struct inode *inode = alloc_anon_inode(nvgrace_mount->mnt_sb);

	if (IS_ERR(inode))
		return PTR_ERR(inode);
	gpu->inode = inode;
	return 0;
}

/**
 * nvgrace_zap_exit() - opposite of nvgrace_zap_init()
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
 * Return: 0 or an error of alloc_file_pseudo(); @vma is unchanged then.
 */
int nvgrace_zap_track(struct nvgrace_gpu *gpu, struct vm_area_struct *vma)
{
	struct file *file;

	ihold(gpu->inode);
	file = alloc_file_pseudo(gpu->inode, nvgrace_mount, "[nvgrace-gpu]",
				 O_RDWR, &nvgrace_file_ops);
	if (IS_ERR(file)) {
		iput(gpu->inode);
		return PTR_ERR(file);
	}
	file->private_data = get_file(vma->vm_file);
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
	return gpu->inode->i_mapping;
}

#endif /* NVGRACE_HAVE_VFIO_INODE */

/**
 * nvgrace_zap() - take all mappings of the emulated regions away
 * @gpu: the GPU; the next touch of a mapping is a fault
 */
void nvgrace_zap(struct nvgrace_gpu *gpu)
{
	u32 i;

	for (i = 0; i < gpu->layout.count; i++) {
		const struct nvgrace_region *region = &gpu->layout.region[i];

		unmap_mapping_range(nvgrace_mappings(gpu),
				    VFIO_PCI_INDEX_TO_OFFSET(region->index),
				    region->mappable, true);
	}
}
