/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright: Contributors to the nvgrace.passthrough project
 *
 * What both kinds of device leave to vfio-pci-core and iommufd. probe.sh
 * fails the build when the kernel has an operation that is missing here.
 */
#ifndef NVGRACE_OPS_H
#define NVGRACE_OPS_H

#ifdef NVGRACE_OP_BIND_IOMMUFD
#define NVGRACE_IOMMUFD_OPS						\
	.bind_iommufd = vfio_iommufd_physical_bind,			\
	.unbind_iommufd = vfio_iommufd_physical_unbind,			\
	.attach_ioas = vfio_iommufd_physical_attach_ioas,
#else
#define NVGRACE_IOMMUFD_OPS
#endif

#ifdef NVGRACE_OP_DETACH_IOAS
#define NVGRACE_DETACH_OPS						\
	.detach_ioas = vfio_iommufd_physical_detach_ioas,
#else
#define NVGRACE_DETACH_OPS
#endif

#ifdef NVGRACE_OP_PASID_ATTACH_IOAS
#define NVGRACE_PASID_OPS						\
	.pasid_attach_ioas = vfio_iommufd_physical_pasid_attach_ioas,	\
	.pasid_detach_ioas = vfio_iommufd_physical_pasid_detach_ioas,
#else
#define NVGRACE_PASID_OPS
#endif

#ifdef NVGRACE_OP_MATCH_TOKEN_UUID
#define NVGRACE_TOKEN_OPS						\
	.match_token_uuid = vfio_pci_core_match_token_uuid,
#else
#define NVGRACE_TOKEN_OPS
#endif

#define NVGRACE_COMMON_OPS						\
	.name = KBUILD_MODNAME,						\
	.init = vfio_pci_core_init_dev,					\
	.release = vfio_pci_core_release_dev,				\
	.request = vfio_pci_core_request,				\
	.match = vfio_pci_core_match,					\
	NVGRACE_TOKEN_OPS						\
	NVGRACE_IOMMUFD_OPS						\
	NVGRACE_DETACH_OPS						\
	NVGRACE_PASID_OPS

#endif /* NVGRACE_OPS_H */
