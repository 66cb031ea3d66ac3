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
#define PROT_READ_WRITE	3
#define MAP_PRIVATE_ANONYMOUS	0x22
#define MAP_FAILED	((void *)-1)

struct timespec {
	long tv_sec;
	long tv_nsec;
};

long pread(int fd, void *buffer, size_t size, long offset);
long pwrite(int fd, const void *buffer, size_t size, long offset);
void *mmap(void *address, size_t size, int protection, int flags, int fd,
	   long offset);
int munmap(void *address, size_t size);
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

/* Seconds for a read into memory that nobody has touched; -1 if not whole. */
double fresh_read(int fd, size_t size, long offset)
{
	double start, took;
	void *buffer;
	long ret;

	buffer = mmap(NULL, size, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1,
		      0);
	if (buffer == MAP_FAILED)
		return -1;
	start = now();
	ret = pread(fd, buffer, size, offset);
	took = now() - start;
	munmap(buffer, size);
	return ret == (long)size ? took : -1;
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
