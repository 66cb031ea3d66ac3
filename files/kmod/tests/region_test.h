/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright: Contributors to the nvgrace.passthrough project
 *
 * Userspace tests of region.h: what the two parts share. Each group of checks
 * prints a line, each program a summary.
 */
#ifndef NVGRACE_REGION_TEST_H
#define NVGRACE_REGION_TEST_H

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;

#include "../region.h"
#include "region_cases.h"

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

static unsigned int checks, failures, groups, failed_groups, failures_before;
static const char *group_name;

#define CHECK(condition, ...) do {					\
	checks++;							\
	if (!(condition)) {						\
		failures++;						\
		if (failures - failures_before <= 5) {			\
			printf("  %s:%d: %s: ", __FILE__, __LINE__,	\
			       #condition);				\
			printf(__VA_ARGS__);				\
			printf("\n");					\
		}							\
	}								\
} while (0)

static void begin(const char *name)
{
	group_name = name;
	failures_before = failures;
	checks = 0;
}

static void end(void)
{
	groups++;
	failed_groups += failures != failures_before;
	printf("%-4s %s (%u checks)\n",
	       failures == failures_before ? "ok" : "FAIL", group_name, checks);
}

/* xorshift64: the same sequence on every run. */
static u64 random_state = 0x9e3779b97f4a7c15ULL;

static u64 random_u64(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static u64 random_below(u64 limit)
{
	return random_u64() % limit;
}

static int summary(const char *what)
{
	printf("%s: %u groups, %u failed\n", what, groups, failed_groups);
	return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif /* NVGRACE_REGION_TEST_H */
