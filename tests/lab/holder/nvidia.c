// SPDX-License-Identifier: GPL-2.0-only
// Copyright: Contributors to the nvgrace.passthrough project
/*
 * What a host sees of NVIDIA's own driver when it owns GPUs: a PCI driver called nvidia, its character devices and its
 * directory in /proc. It does nothing with a GPU. Like NVIDIA's it does not let go of one while a process has its node
 * open: whoever unbinds it waits, and cannot be killed.
 *
 * The nodes in /dev are not made here; NVIDIA's are made from user space, too.
 */
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/wait.h>

#define NVIDIA_MAJOR 195
#define NVIDIA_CONTROL 255
#define NVIDIA_GPUS 8

struct nvidia_gpu {
	struct pci_dev *pdev;
	struct proc_dir_entry *directory;
	int users;
};

static struct nvidia_gpu gpus[NVIDIA_GPUS];
static DEFINE_MUTEX(gpus_lock);
static DECLARE_WAIT_QUEUE_HEAD(gpus_closed);
static struct proc_dir_entry *gpus_directory;

static int nvidia_open(struct inode *inode, struct file *file)
{
	unsigned int minor = iminor(inode);
	int ret = 0;

	if (minor == NVIDIA_CONTROL)
		return 0;
	mutex_lock(&gpus_lock);
	if (minor < NVIDIA_GPUS && gpus[minor].pdev)
		gpus[minor].users++;
	else
		ret = -ENODEV;
	mutex_unlock(&gpus_lock);
	return ret;
}

static int nvidia_release(struct inode *inode, struct file *file)
{
	unsigned int minor = iminor(inode);

	if (minor == NVIDIA_CONTROL)
		return 0;
	mutex_lock(&gpus_lock);
	gpus[minor].users--;
	mutex_unlock(&gpus_lock);
	wake_up_all(&gpus_closed);
	return 0;
}

static const struct file_operations nvidia_fops = {
	.owner = THIS_MODULE,
	.open = nvidia_open,
	.release = nvidia_release,
};

static int nvidia_show(struct seq_file *file, void *data)
{
	struct nvidia_gpu *gpu = file->private;

	seq_puts(file, "Model: \t\t Emulated\n");
	seq_printf(file, "Bus Location: \t %s\n", pci_name(gpu->pdev));
	seq_printf(file, "Device Minor: \t %d\n", (int)(gpu - gpus));
	return 0;
}

static int nvidia_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct nvidia_gpu *gpu = NULL;
	int i;

	mutex_lock(&gpus_lock);
	for (i = 0; i < NVIDIA_GPUS && !gpu; i++)
		if (!gpus[i].pdev)
			gpu = &gpus[i];
	if (gpu) {
		gpu->pdev = pdev;
		gpu->directory = proc_mkdir(pci_name(pdev), gpus_directory);
		proc_create_single_data("information", 0444, gpu->directory, nvidia_show, gpu);
		pci_set_drvdata(pdev, gpu);
	}
	mutex_unlock(&gpus_lock);
	return gpu ? 0 : -ENOSPC;
}

static void nvidia_remove(struct pci_dev *pdev)
{
	struct nvidia_gpu *gpu = pci_get_drvdata(pdev);

	if (READ_ONCE(gpu->users))
		pci_err(pdev, "Attempting to remove device with non-zero usage count!\n");
	mutex_lock(&gpus_lock);
	while (gpu->users) {
		mutex_unlock(&gpus_lock);
		wait_event(gpus_closed, !READ_ONCE(gpu->users));
		mutex_lock(&gpus_lock);
	}
	proc_remove(gpu->directory);
	gpu->pdev = NULL;
	mutex_unlock(&gpus_lock);
}

static const struct pci_device_id nvidia_table[] = {
	{
		PCI_DEVICE(PCI_VENDOR_ID_NVIDIA, PCI_ANY_ID),
		.class = PCI_BASE_CLASS_DISPLAY << 16,
		.class_mask = 0xff << 16,
	},
	{}
};

static struct pci_driver nvidia_driver = {
	.name = "nvidia",
	.id_table = nvidia_table,
	.probe = nvidia_probe,
	.remove = nvidia_remove,
};

static int __init nvidia_init(void)
{
	struct proc_dir_entry *directory;
	int ret;

	directory = proc_mkdir("driver/nvidia", NULL);
	if (!directory)
		return -ENOMEM;
	gpus_directory = proc_mkdir("gpus", directory);
	ret = register_chrdev(NVIDIA_MAJOR, "nvidia", &nvidia_fops);
	if (ret)
		goto err_proc;
	ret = pci_register_driver(&nvidia_driver);
	if (ret)
		goto err_chrdev;
	return 0;

err_chrdev:
	unregister_chrdev(NVIDIA_MAJOR, "nvidia");
err_proc:
	remove_proc_subtree("driver/nvidia", NULL);
	return ret;
}

static void __exit nvidia_exit(void)
{
	pci_unregister_driver(&nvidia_driver);
	unregister_chrdev(NVIDIA_MAJOR, "nvidia");
	remove_proc_subtree("driver/nvidia", NULL);
}

module_init(nvidia_init);
module_exit(nvidia_exit);

MODULE_DESCRIPTION("Stand-in for NVIDIA's driver on an emulated host");
MODULE_LICENSE("GPL");
