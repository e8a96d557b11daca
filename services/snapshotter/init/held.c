// SPDX-License-Identifier: Apache-2.0
/*
 * Files that the golden had open for writing get the inode numbers back that it saw: SQLite, for
 * one, notes them and never again writes to a file that has another. A tmpfs counts its inodes up
 * (mm/shmem.c, shmem_reserve_inode), so on a fresh one the numbers between are used up first. The
 * files wait aside until the upper layer of their tree is made.
 */
#include "init.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#define ASIDE LAYERS "/.held"

static int make_numbered(const char *path, unsigned long inode)
{
	struct stat status;

	for (;;) {
		int fd = open(path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);

		if (fd < 0 || fstat(fd, &status))
			return fail("held-file", "making %s", path);
		if (status.st_ino == inode)
			return fd;
		close(fd);
		errno = ERANGE;
		if (status.st_ino > inode || unlink(path))
			return fail("held-file", "inode %lu is not to be had", inode);
	}
}

/* Copies what is not a hole. */
static int copy_content(int from, int to)
{
	off_t size = lseek(from, 0, SEEK_END), data = 0;

	if (size < 0 || ftruncate(to, size))
		return -1;
	while (data < size && (data = lseek(from, data, SEEK_DATA)) >= 0) {
		off_t end = lseek(from, data, SEEK_HOLE);

		if (end < 0 || lseek(to, data, SEEK_SET) < 0)
			return -1;
		while (data < end)
			if (sendfile(to, from, &data, (size_t)(end - data)) <= 0)
				return -1;
	}
	return data >= 0 || errno == ENXIO ? 0 : -1; /* ENXIO: only a hole is left */
}

static int make_held(const struct held *held, size_t number)
{
	char path[PATH_ROOM];
	int from, to, copied;

	snprintf(path, sizeof(path), LOWERS "/%s/0/%s", held->tag, held->path);
	from = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (from < 0)
		return fail("held-file", "opening %s", path);
	snprintf(path, sizeof(path), ASIDE "/%zu", number);
	to = make_numbered(path, held->inode);
	copied = to < 0 ? -1 : copy_content(from, to);
	if (to >= 0 && copied)
		fail("held-file", "copying %s", held->path);
	close(from);
	if (to >= 0)
		close(to);
	return copied;
}

/* Makes the files of all trees, by rising inode numbers; the layers' tmpfs is still empty. */
int held_make(const struct spec *spec)
{
	if (spec->held_count && mkdir(ASIDE, 0700))
		return fail("held-file", "mkdir " ASIDE);
	for (size_t i = 0; i < spec->held_count; i++)
		if (make_held(&spec->held[i], i))
			return -1;
	return 0;
}

/* Gives what lies in an upper layer the owner, mode and times that it has in the layers below. */
static int dress(const struct tree *tree, const char *part)
{
	char path[PATH_ROOM];
	struct stat like;
	int lower = 0;

	do {
		snprintf(path, sizeof(path), LOWERS "/%s/%d/%s", tree->tag, lower, part);
	} while (lstat(path, &like) && ++lower < tree->lowers);
	if (lower == tree->lowers)
		return fail("held-file", "nothing is below %s", part);
	snprintf(path, sizeof(path), LAYERS "/%s/u/%s", tree->tag, part);
	if (lchown(path, like.st_uid, like.st_gid) || chmod(path, like.st_mode & 07777) ||
	    utimensat(AT_FDCWD, path, (struct timespec[]){like.st_atim, like.st_mtim}, 0))
		return fail("held-file", "attributes of %s", part);
	return 0;
}

static int place(const struct tree *tree, const struct held *held, size_t number)
{
	char from[64], to[PATH_ROOM], part[4096];

	snprintf(from, sizeof(from), ASIDE "/%zu", number);
	snprintf(to, sizeof(to), LAYERS "/%s/u/%s", tree->tag, held->path);
	make_folders(to, false);
	if (rename(from, to))
		return fail("held-file", "placing %s", held->path);
	snprintf(part, sizeof(part), "%s", held->path);
	do {
		if (dress(tree, part))
			return -1;
		*(strrchr(part, '/') ?: part) = 0;
	} while (*part);
	return 0;
}

/* Puts a tree's files into its upper layer, which is not mounted yet. */
int held_place(const struct spec *spec, const struct tree *tree)
{
	for (size_t i = 0; i < spec->held_count; i++)
		if (!strcmp(spec->held[i].tag, tree->tag) && place(tree, &spec->held[i], i))
			return -1;
	return 0;
}
