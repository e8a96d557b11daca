// SPDX-License-Identifier: Apache-2.0
/*
 * Ends of streams on connections that the tree holds. The kernel's way to end a connection from
 * beside sends a reset alone, and to a client that waits a reset is an error; so one of the
 * holders' descriptors is taken for a moment and shut down.
 */
#include "init.h"

#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

struct wanted {
	uint32_t *inodes; /* 0 for one that is done */
	size_t count, left;
	int (*act)(int fd);
};

static int finish(int fd)
{
	return shutdown(fd, SHUT_WR);
}

static int hurry(int fd)
{
	int one = 1;

	return setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static uint32_t *find(struct wanted *wanted, unsigned long inode)
{
	for (size_t i = 0; inode && i < wanted->count; i++)
		if (wanted->inodes[i] == inode)
			return &wanted->inodes[i];
	return NULL;
}

/* Whether a descriptor is the socket; between the look and the taking it may have become another.
 */
static bool is_socket(int fd, uint32_t inode)
{
	struct stat status;

	return !fstat(fd, &status) && S_ISSOCK(status.st_mode) && status.st_ino == inode;
}

/* SAFETY: process is a pidfd of a process of the tree, and what is acted on is what was wanted. */
static void take(int process, int number, uint32_t *inode, struct wanted *wanted)
{
	int fd = (int)syscall(SYS_pidfd_getfd, process, number, 0);

	if (fd < 0)
		return;
	if (is_socket(fd, *inode) && !wanted->act(fd)) {
		*inode = 0;
		wanted->left--;
	}
	close(fd);
}

static void search(int process, DIR *descriptors, struct wanted *wanted)
{
	struct dirent *entry;
	char target[64];

	while (wanted->left && (entry = readdir(descriptors))) {
		ssize_t length =
			readlinkat(dirfd(descriptors), entry->d_name, target, sizeof(target) - 1);
		unsigned long inode = 0;
		uint32_t *found;

		if (length < 0)
			continue;
		target[length] = 0;
		if (sscanf(target, "socket:[%lu]", &inode) != 1)
			continue;
		found = find(wanted, inode);
		if (found)
			take(process, atoi(entry->d_name), found, wanted);
	}
}

/* SAFETY: pid is above 1, so that it is not this process; a pidfd is never another's. */
static void search_process(pid_t pid, struct wanted *wanted)
{
	char path[32];
	int process;
	DIR *descriptors;

	if (pid <= 1)
		return;
	process = (int)syscall(SYS_pidfd_open, pid, 0);
	if (process < 0)
		return;
	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	descriptors = opendir(path);
	if (descriptors) {
		search(process, descriptors, wanted);
		closedir(descriptors);
	}
	close(process);
}

/* Sockets that no process holds any more, or that are gone by now, are left out. */
static void act_on(uint32_t *inodes, size_t count, int (*act)(int fd))
{
	struct wanted wanted = {.inodes = inodes, .count = count, .act = act};
	struct dirent *entry;
	DIR *processes;

	for (size_t i = 0; i < count; i++)
		wanted.left += inodes[i] != 0;
	if (!wanted.left)
		return;
	processes = opendir("/proc");
	if (!processes)
		return;
	while (wanted.left && (entry = readdir(processes)))
		search_process(atoi(entry->d_name), &wanted);
	closedir(processes);
}

/* Ends the streams of these sockets; what was written is sent first. */
void closing_finish(uint32_t *inodes, size_t count)
{
	act_on(inodes, count, finish);
}

/* Sends what these sockets hold back to fill a segment, now and from now on. */
void closing_hurry(uint32_t *inodes, size_t count)
{
	act_on(inodes, count, hurry);
}
