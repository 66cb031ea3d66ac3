// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright: Contributors to the nvgrace.passthrough project
 *
 * VFIO PCI variant driver for the GPUs of NVIDIA Grace Hopper and Grace
 * Blackwell. Their memory is coherent with the CPU and no PCI BAR of the
 * function: firmware says where it is, and this driver shows it to the user
 * of the VFIO device as emulated BARs. All else is vfio-pci-core.
 */
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/string.h>

#include "nvgrace.h"
#include "ops.h"

#define NVGRACE_VERSION	"1.0.0"

static char *layout = "mainline";
module_param(layout, charp, 0444);
MODULE_PARM_DESC(layout,
		 "emulated BARs: \"mainline\" (usemem as BAR4, resmem as BAR2) or \"bar2\" (all memory as BAR2)");

static int nvgrace_layout_kind;
static const char * const nvgrace_layouts[] = {
	[NVGRACE_LAYOUT_MAINLINE] = "mainline",
	[NVGRACE_LAYOUT_BAR2] = "bar2",
};

static int nvgrace_open_device(struct vfio_device *vdev)
{
	struct nvgrace_gpu *gpu = nvgrace_from_vfio(vdev);
	int ret;

	ret = vfio_pci_core_enable(&gpu->core);
	if (ret)
		return ret;

	ret = nvgrace_poison_register(gpu);
	if (ret) {
		vfio_pci_core_disable(&gpu->core);
		return ret;
	}

	/* vfio_pci_core_enable() has reset the function. */
	nvgrace_note_reset(gpu);
	nvgrace_config_reset(gpu);
	vfio_pci_core_finish_enable(&gpu->core);
	return 0;
}

static void nvgrace_close_device(struct vfio_device *vdev)
{
	struct nvgrace_gpu *gpu = nvgrace_from_vfio(vdev);

	nvgrace_poison_unregister(gpu);
	nvgrace_unmap_memory(gpu);
	vfio_pci_core_close_device(vdev);
}

static long nvgrace_ioctl(struct vfio_device *vdev, unsigned int cmd,
			  unsigned long arg)
{
	long ret;

	switch (cmd) {
#ifndef NVGRACE_OP_GET_REGION_INFO_CAPS
	case VFIO_DEVICE_GET_REGION_INFO:
		return nvgrace_region_info_ioctl(vdev, arg);
#endif
	case VFIO_DEVICE_IOEVENTFD:
		/* The core would write to the physical BARs only. */
		return -ENOTTY;
	case VFIO_DEVICE_RESET:
		ret = vfio_pci_core_ioctl(vdev, cmd, arg);
		if (!ret)
			nvgrace_config_reset(nvgrace_from_vfio(vdev));
		return ret;
	default:
		return vfio_pci_core_ioctl(vdev, cmd, arg);
	}
}

static bool nvgrace_changes_power(u32 flags)
{
	if (!(flags & VFIO_DEVICE_FEATURE_SET))
		return false;
	switch (flags & VFIO_DEVICE_FEATURE_MASK) {
	case VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY:
	case VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP:
	case VFIO_DEVICE_FEATURE_LOW_POWER_EXIT:
		return true;
	default:
		return false;
	}
}

/*
 * In D3cold memory loses its training, as in a reset. Noted before for the
 * exit, after which it can be touched at once, and afterwards for the entry,
 * until which it can.
 */
static int nvgrace_feature(struct vfio_device *vdev, u32 flags,
			   void __user *arg, size_t argsz)
{
	struct nvgrace_gpu *gpu = nvgrace_from_vfio(vdev);
	bool power = nvgrace_changes_power(flags);
	int ret;

	if (power)
		nvgrace_note_reset(gpu);
	ret = vfio_pci_core_ioctl_feature(vdev, flags, arg, argsz);
	if (power) {
		nvgrace_note_reset(gpu);
		nvgrace_zap_if_off(gpu);
	}
	return ret;
}

static ssize_t nvgrace_rw(struct vfio_device *vdev, char __user *buf,
			  size_t count, loff_t *ppos, bool iswrite)
{
	struct nvgrace_gpu *gpu = nvgrace_from_vfio(vdev);
	u64 index = VFIO_PCI_OFFSET_TO_INDEX(*ppos);
	struct nvgrace_bar *bar;

	if (!count)
		return 0;
	if (index == VFIO_PCI_CONFIG_REGION_INDEX)
		return nvgrace_config_rw(gpu, buf, count, ppos, iswrite);

	bar = nvgrace_find_bar(gpu, index);
	if (bar)
		return nvgrace_bar_rw(bar, buf, count, ppos, iswrite);
	return nvgrace_core_rw(gpu, buf, count, ppos, iswrite);
}

static ssize_t nvgrace_read(struct vfio_device *vdev, char __user *buf,
			    size_t count, loff_t *ppos)
{
	return nvgrace_rw(vdev, buf, count, ppos, false);
}

static ssize_t nvgrace_write(struct vfio_device *vdev, const char __user *buf,
			     size_t count, loff_t *ppos)
{
	return nvgrace_rw(vdev, (char __user *)buf, count, ppos, true);
}

static const struct vfio_device_ops nvgrace_ops = {
	NVGRACE_COMMON_OPS
	.open_device = nvgrace_open_device,
	.close_device = nvgrace_close_device,
	.ioctl = nvgrace_ioctl,
	.device_feature = nvgrace_feature,
#ifdef NVGRACE_OP_GET_REGION_INFO_CAPS
	.get_region_info_caps = nvgrace_region_info,
#endif
	.read = nvgrace_read,
	.write = nvgrace_write,
	.mmap = nvgrace_mmap,
};

static int nvgrace_plain_open_device(struct vfio_device *vdev)
{
	struct nvgrace_gpu *gpu = nvgrace_from_vfio(vdev);
	int ret;

	ret = vfio_pci_core_enable(&gpu->core);
	if (!ret)
		vfio_pci_core_finish_enable(&gpu->core);
	return ret;
}

/* For a GPU without coherent memory. */
static const struct vfio_device_ops nvgrace_plain_ops = {
	NVGRACE_COMMON_OPS
	.open_device = nvgrace_plain_open_device,
	.close_device = vfio_pci_core_close_device,
	.ioctl = vfio_pci_core_ioctl,
	.device_feature = vfio_pci_core_ioctl_feature,
#ifdef NVGRACE_OP_GET_REGION_INFO_CAPS
	.get_region_info_caps = vfio_pci_ioctl_get_region_info,
#endif
	.read = vfio_pci_core_read,
	.write = vfio_pci_core_write,
	.mmap = vfio_pci_core_mmap,
};

#ifdef NVGRACE_OP_GET_DMABUF_PHYS
/*
 * Only without emulated regions: the core would export what is behind the
 * physical BAR of the same index.
 */
static const struct vfio_pci_device_ops nvgrace_plain_pci_ops = {
	.get_dmabuf_phys = vfio_pci_core_get_dmabuf_phys,
};
#endif

/* The coherent memory, and the registers that tell whether it can be used. */
static int nvgrace_init_gpu(struct nvgrace_gpu *gpu, u64 base, u64 length)
{
	int ret;

	spin_lock_init(&gpu->bar_lock);
	mutex_init(&gpu->map_lock);

	ret = nvgrace_set_layout(gpu, nvgrace_layout_kind, base, length);
	if (ret)
		return ret;
	return nvgrace_ready_init(gpu);
}

static void nvgrace_exit_gpu(struct nvgrace_gpu *gpu)
{
	nvgrace_ready_exit(gpu);
	nvgrace_zap_exit(gpu);
}

static struct nvgrace_gpu *nvgrace_alloc(struct pci_dev *pdev)
{
	struct nvgrace_gpu *gpu;
	u64 base, length;
	int ret;

	if (nvgrace_find_memory(pdev, &base, &length)) {
		gpu = vfio_alloc_device(nvgrace_gpu, core.vdev, &pdev->dev,
					&nvgrace_plain_ops);
#ifdef NVGRACE_OP_GET_DMABUF_PHYS
		if (!IS_ERR(gpu))
			gpu->core.pci_ops = &nvgrace_plain_pci_ops;
#endif
		return gpu;
	}

	gpu = vfio_alloc_device(nvgrace_gpu, core.vdev, &pdev->dev,
				&nvgrace_ops);
	if (IS_ERR(gpu))
		return gpu;

	ret = nvgrace_init_gpu(gpu, base, length);
	if (ret) {
		vfio_put_device(&gpu->core.vdev);
		return ERR_PTR(ret);
	}
	return gpu;
}

/* Any function may come here by driver_override: the ids are no gate. */
static int nvgrace_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct nvgrace_gpu *gpu;
	int ret;

	gpu = nvgrace_alloc(pdev);
	if (IS_ERR(gpu))
		return PTR_ERR(gpu);

	dev_set_drvdata(&pdev->dev, &gpu->core);
	ret = vfio_pci_core_register_device(&gpu->core);
	if (ret) {
		nvgrace_exit_gpu(gpu);
		vfio_put_device(&gpu->core.vdev);
	}
	return ret;
}

static void nvgrace_remove(struct pci_dev *pdev)
{
	struct vfio_pci_core_device *core = dev_get_drvdata(&pdev->dev);
	struct nvgrace_gpu *gpu = nvgrace_from_vfio(&core->vdev);

	vfio_pci_core_unregister_device(core);
	nvgrace_exit_gpu(gpu);
	vfio_put_device(&core->vdev);
}

static void nvgrace_reset_prepare(struct pci_dev *pdev)
{
	struct vfio_pci_core_device *core = dev_get_drvdata(&pdev->dev);

	if (core)
		nvgrace_reset_begins(nvgrace_from_vfio(&core->vdev));
}

static void nvgrace_reset_done(struct pci_dev *pdev)
{
	struct vfio_pci_core_device *core = dev_get_drvdata(&pdev->dev);

	if (core)
		nvgrace_reset_ends(nvgrace_from_vfio(&core->vdev));
}

/* The recovery from an error resets the bus and calls neither of the two. */
static void nvgrace_reset_unnoticed(struct pci_dev *pdev)
{
	nvgrace_reset_prepare(pdev);
	nvgrace_reset_done(pdev);
}

static pci_ers_result_t nvgrace_error_detected(struct pci_dev *pdev,
					       pci_channel_state_t state)
{
	if (state != pci_channel_io_normal)
		nvgrace_reset_unnoticed(pdev);
	return vfio_pci_core_aer_err_detected(pdev, state);
}

static const struct pci_error_handlers nvgrace_err_handlers = {
	.reset_prepare = nvgrace_reset_prepare,
	.reset_done = nvgrace_reset_done,
	.error_detected = nvgrace_error_detected,
	.resume = nvgrace_reset_unnoticed,
};

static const struct pci_device_id nvgrace_ids[] = {
	/* GH200 120GB */
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_VENDOR_ID_NVIDIA, 0x2342) },
	/* GH200 480GB */
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_VENDOR_ID_NVIDIA, 0x2345) },
	/* GH200 144GB HBM3e */
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_VENDOR_ID_NVIDIA, 0x2348) },
	/* GB200 */
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_VENDOR_ID_NVIDIA, 0x2941) },
	/* GB300 */
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_VENDOR_ID_NVIDIA, 0x31c2) },
	{}
};
MODULE_DEVICE_TABLE(pci, nvgrace_ids);

static struct pci_driver nvgrace_driver = {
	.name = KBUILD_MODNAME,
	.id_table = nvgrace_ids,
	.probe = nvgrace_probe,
	.remove = nvgrace_remove,
	.err_handler = &nvgrace_err_handlers,
	.driver_managed_dma = true,
};

static int __init nvgrace_module_init(void)
{
	nvgrace_layout_kind = match_string(nvgrace_layouts,
					   ARRAY_SIZE(nvgrace_layouts), layout);
	if (nvgrace_layout_kind < 0) {
		pr_err(KBUILD_MODNAME ": layout=%s is none of mainline, bar2\n",
		       layout);
		return -EINVAL;
	}
	return pci_register_driver(&nvgrace_driver);
}
module_init(nvgrace_module_init);

static void __exit nvgrace_module_exit(void)
{
	pci_unregister_driver(&nvgrace_driver);
}
module_exit(nvgrace_module_exit);

MODULE_LICENSE("GPL");
MODULE_VERSION(NVGRACE_VERSION);
MODULE_AUTHOR("Contributors to the nvgrace.passthrough project");
MODULE_DESCRIPTION("VFIO PCI variant driver for NVIDIA Grace Hopper and Grace Blackwell GPUs");
