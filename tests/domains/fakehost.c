// SPDX-License-Identifier: GPL-3.0-or-later
// Copyright: Contributors to the nvgrace.passthrough project
//
// Preloaded into libvirt, so that it writes QEMU's command line for another host than the one it runs on: the machine
// type of FAKE_MACHINE, and huge pages of the size that ends the directory's name (/dev/hugepages-SIZE, bytes).
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/utsname.h>

#define HUGETLBFS_MAGIC 0x958458f6
static const char huge[] = "/dev/hugepages-";

int uname(struct utsname *name)
{
	int (*real)(struct utsname *) = (int (*)(struct utsname *))dlsym(RTLD_NEXT, "uname");
	const char *machine = getenv("FAKE_MACHINE");
	int result = real(name);

	if (result == 0 && machine && strlen(machine) < sizeof(name->machine))
		strcpy(name->machine, machine);
	return result;
}

#define FAKE_STATFS(function, type)                                                                   \
	int function(const char *path, struct type *found)                                                \
	{                                                                                                 \
		int (*real)(const char *, struct type *) =                                                    \
			(int (*)(const char *, struct type *))dlsym(RTLD_NEXT, #function);                        \
		int result = real(path, found);                                                               \
                                                                                                      \
		if (result == 0 && strncmp(path, huge, sizeof(huge) - 1) == 0) {                              \
			found->f_type = HUGETLBFS_MAGIC;                                                          \
			found->f_bsize = atoll(path + sizeof(huge) - 1);                                          \
		}                                                                                             \
		return result;                                                                                \
	}

FAKE_STATFS(statfs, statfs)
FAKE_STATFS(statfs64, statfs64)
