// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright: Contributors to the nvgrace.passthrough project
 *
 * VFIO_DEVICE_GET_REGION_INFO. The size of an emulated region is the reported
 * one; userspace learns the actual one from its only sparse-mmap area.
 */
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "nvgrace.h"

static int nvgrace_add_sparse_area(const struct nvgrace_region *region,
				   struct vfio_info_cap *caps)
{
	struct vfio_region_info_cap_sparse_mmap *sparse;
	size_t size = struct_size(sparse, areas, 1);
	int ret;

	sparse = kzalloc(size, GFP_KERNEL);
	if (!sparse)
		return -ENOMEM;

	sparse->header.id = VFIO_REGION_INFO_CAP_SPARSE_MMAP;
	sparse->header.version = 1;
	sparse->nr_areas = 1;
	sparse->areas[0].offset = 0;
	sparse->areas[0].size = region->mappable;

	ret = vfio_info_add_capability(caps, &sparse->header, size);
	kfree(sparse);
	return ret;
}

static int nvgrace_bar_info(const struct nvgrace_region *region,
			    struct vfio_region_info *info,
			    struct vfio_info_cap *caps)
{
	info->offset = VFIO_PCI_INDEX_TO_OFFSET(info->index);
	info->size = region->reported;
	info->flags = VFIO_REGION_INFO_FLAG_READ |
		      VFIO_REGION_INFO_FLAG_WRITE |
		      VFIO_REGION_INFO_FLAG_MMAP;
	return nvgrace_add_sparse_area(region, caps);
}

#ifdef NVGRACE_OP_GET_REGION_INFO_CAPS

/* vfio copies @info and @caps to the user and sets the flag for the latter. */
int nvgrace_region_info(struct vfio_device *vdev, struct vfio_region_info *info,
			struct vfio_info_cap *caps)
{
	struct nvgrace_bar *bar;

	bar = nvgrace_find_bar(nvgrace_from_vfio(vdev), info->index);
	if (!bar)
		return vfio_pci_ioctl_get_region_info(vdev, info, caps);
	return nvgrace_bar_info(bar->region, info, caps);
}

#else

/*
 * The two-call protocol: where the user's buffer is too small for the
 * capability, argsz tells how big it has to be and cap_offset stays 0.
 */
static int nvgrace_copy_caps(struct vfio_region_info *info,
			     struct vfio_info_cap *caps, void __user *arg)
{
	info->flags |= VFIO_REGION_INFO_FLAG_CAPS;
	info->cap_offset = 0;
	if (info->argsz < sizeof(*info) + caps->size) {
		info->argsz = sizeof(*info) + caps->size;
		return 0;
	}

	vfio_info_cap_shift(caps, sizeof(*info));
	if (copy_to_user(arg + sizeof(*info), caps->buf, caps->size))
		return -EFAULT;
	info->cap_offset = sizeof(*info);
	return 0;
}

long nvgrace_region_info_ioctl(struct vfio_device *vdev, unsigned long arg)
{
	size_t minsz = offsetofend(struct vfio_region_info, offset);
	void __user *uarg = (void __user *)arg;
	struct vfio_region_info info = {};
	struct vfio_info_cap caps = {};
	struct nvgrace_bar *bar;
	int ret;

	if (copy_from_user(&info, uarg, minsz))
		return -EFAULT;
	bar = nvgrace_find_bar(nvgrace_from_vfio(vdev), info.index);
	if (!bar)
		return vfio_pci_core_ioctl(vdev, VFIO_DEVICE_GET_REGION_INFO,
					   arg);
	if (info.argsz < minsz)
		return -EINVAL;

	ret = nvgrace_bar_info(bar->region, &info, &caps);
	if (!ret)
		ret = nvgrace_copy_caps(&info, &caps, uarg);
	if (!ret && copy_to_user(uarg, &info, minsz))
		ret = -EFAULT;
	kfree(caps.buf);
	return ret;
}

#endif /* NVGRACE_OP_GET_REGION_INFO_CAPS */
