/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Copyright: Contributors to the nvgrace.passthrough project
 *
 * The loops that are timed. An interpreter's own time would be most of it.
 * The emulated host has a compiler for modules and no headers of the C
 * library, so what is needed of them is declared here, for 64-bit Linux.
 */
#include <stddef.h>

#define CLOCK_MONOTONIC	1

struct timespec {
	long tv_sec;
	long tv_nsec;
};

long pread(int fd, void *buffer, size_t size, long offset);
long pwrite(int fd, const void *buffer, size_t size, long offset);
int clock_gettime(int clock, struct timespec *time);

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

/*
 * Seconds for @count transfers of @size bytes, which walk through @window
 * bytes from @offset again and again; -1 when one of them is not whole.
 */
double transfers(int fd, int write, void *buffer, size_t size, long offset,
		 size_t window, long count)
{
	double start = now();
	size_t done = 0;
	long ret;
	long i;

	for (i = 0; i < count; i++) {
		ret = write ? pwrite(fd, buffer, size, offset + done) :
			      pread(fd, buffer, size, offset + done);
		if (ret != (long)size)
			return -1;
		done = (done + size) % window;
	}
	return now() - start;
}

/* Seconds for reading one byte in each @step of @length bytes. */
double touch(volatile const char *memory, size_t length, size_t step)
{
	double start = now();
	size_t i;

	for (i = 0; i < length; i += step)
		(void)memory[i];
	return now() - start;
}
