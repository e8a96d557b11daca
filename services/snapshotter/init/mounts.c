// SPDX-License-Identifier: Apache-2.0
/*
 * What the sandbox sees: a small tmpfs with binds of the host, a /proc of its own, and one overlay
 * per writable folder, whose upper layers live on one tmpfs that an evict replaces.
 */
#include "init.h"

#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/mount.h>
#include <linux/openat2.h>

#define STAGING "/tmp" /* covered by the new root in our own mount namespace only */
#define BINDS LOWERS "/.binds"
#define SNAPSHOT "/snap"

/* Makes the folders of a path below the working directory; "/a/b" is "a/b" there. */
void make_folders(const char *path, bool last_too)
{
	char part[PATH_ROOM];

	for (const char *end = path + 1; *end; end++)
		if (*end == '/') {
			snprintf(part, sizeof(part), "%.*s", (int)(end - path - 1), path + 1);
			mkdir(part, 0755);
		}
	if (last_too)
		mkdir(path + 1, 0755);
}

/* Makes a mount point; what exists may be read-only, and the mount will tell. */
static void make_point(const char *path, bool is_folder)
{
	make_folders(path, is_folder);
	if (!is_folder)
		close(open(path + 1, O_CREAT | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0444));
}

/* Opens a path as if the working directory were the root, so that no symlink leads outside. */
static int open_inside(const char *path)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT};

	return (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));
}

static int attach(int mount_fd, const char *target)
{
	struct stat status;
	int point, moved;

	if (fstat(mount_fd, &status))
		return fail("mount", "stat for %s", target);
	make_point(target, S_ISDIR(status.st_mode));
	point = open_inside(target);
	if (point < 0)
		return fail("mount", "no mount point %s", target);
	moved = (int)syscall(SYS_move_mount, mount_fd, "", point, "",
			     MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
	if (moved)
		fail("mount", "move_mount to %s", target);
	close(point);
	close(mount_fd);
	return moved;
}

/* One whose target lies in a writable folder waits aside until that is mounted. */
static int attach_bind(const struct bind *bind, size_t number)
{
	char aside[64];

	if (!bind->on_tree)
		return attach(bind->fd, bind->target);
	snprintf(aside, sizeof(aside), BINDS "/%zu", number);
	return attach(bind->fd, aside);
}

static int attach_lowers(const struct tree *tree)
{
	char path[128];

	for (int i = 0; i < tree->lowers; i++) {
		snprintf(path, sizeof(path), LOWERS "/%s/%d", tree->tag, i);
		if (attach(tree->lower_fds[i], path))
			return -1;
	}
	if (tree->lowers == 0) { /* an overlay needs one */
		snprintf(path, sizeof(path), LOWERS "/%s/0", tree->tag);
		make_folders(path, true);
	}
	return 0;
}

static int make_links(const struct spec *spec)
{
	static const struct link devices[] = {{"dev/fd", "/proc/self/fd"},
					      {"dev/stdin", "/proc/self/fd/0"},
					      {"dev/stdout", "/proc/self/fd/1"},
					      {"dev/stderr", "/proc/self/fd/2"}};

	for (size_t i = 0; i < spec->link_count; i++)
		if (symlink(spec->links[i].to, spec->links[i].path + 1))
			return fail("mount", "link %s", spec->links[i].path);
	for (size_t i = 0; i < ARRAY_SIZE(devices); i++)
		if (symlink(devices[i].to, devices[i].path))
			return fail("mount", "link %s", devices[i].path);
	return 0;
}

/* Fills the new root, which is the working directory. /proc first, while the host's is in sight. */
static int fill_root(const struct spec *spec)
{
	if (mkdir("proc", 0555) || mkdir("dev", 0755) || mkdir("layers", 0700) ||
	    mkdir("lowers", 0700) || mkdir("snap", 0755))
		return fail("mount", "folders of the root");
	if (mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "hidepid=2"))
		return fail("mount", "proc");
	for (size_t i = 0; i < spec->bind_count; i++)
		if (attach_bind(&spec->binds[i], i))
			return -1;
	for (size_t i = 0; i < spec->tree_count; i++) {
		make_folders(spec->trees[i].target, true);
		if (attach_lowers(&spec->trees[i]))
			return -1;
	}
	return make_links(spec);
}

static int make_layer(const struct spec *spec, const struct tree *tree)
{
	char options[512], upper[96];
	int length;

	snprintf(upper, sizeof(upper), LAYERS "/%s", tree->tag);
	mkdir(upper, 0700);
	snprintf(upper, sizeof(upper), LAYERS "/%s/w", tree->tag);
	mkdir(upper, 0700);
	snprintf(upper, sizeof(upper), LAYERS "/%s/u", tree->tag);
	mkdir(upper, 0700);
	if (chown(upper, tree->owner, tree->owner) || chmod(upper, tree->mode))
		return fail("mount", "upper layer of %s", tree->target);
	if (held_place(spec, tree))
		return -1;
	length = snprintf(options, sizeof(options), "upperdir=%s,workdir=" LAYERS "/%s/w", upper,
			  tree->tag);
	length += snprintf(options + length, sizeof(options) - (size_t)length,
			   ",userxattr,xino=on,lowerdir=" LOWERS "/%s/0", tree->tag);
	for (int i = 1; i < tree->lowers; i++)
		length += snprintf(options + length, sizeof(options) - (size_t)length,
				   ":" LOWERS "/%s/%d", tree->tag, i);
	make_folders(tree->target, true); /* it may lie in a tree that was mounted just now */
	if (mount("overlay", tree->target, "overlay", MS_NOSUID | MS_NODEV, options))
		return fail("mount", "overlay on %s", tree->target);
	return 0;
}

/* A bind keeps the flags of what it is made from. */
static int bind_on_tree(const struct bind *bind, size_t number)
{
	char aside[64];
	struct stat status;

	if (!bind->on_tree)
		return 0;
	snprintf(aside, sizeof(aside), BINDS "/%zu", number);
	if (stat(aside, &status))
		return fail("mount", "what is bound on %s", bind->target);
	make_point(bind->target, S_ISDIR(status.st_mode));
	if (mount(aside, bind->target, NULL, MS_BIND | MS_REC, NULL))
		return fail("mount", "binding on %s", bind->target);
	return 0;
}

int layers_make(const struct spec *spec)
{
	char options[64];

	snprintf(options, sizeof(options), "mode=700,size=%ld,nr_inodes=%ld", spec->layers_size,
		 spec->layers_size / 4096);
	if (mount("layers", LAYERS, "tmpfs", MS_NOSUID | MS_NODEV, options))
		return fail("mount", "layers");
	if (held_make(spec))
		return -1;
	for (size_t i = 0; i < spec->tree_count; i++)
		if (make_layer(spec, &spec->trees[i]))
			return -1;
	for (size_t i = 0; i < spec->bind_count; i++)
		if (bind_on_tree(&spec->binds[i], i))
			return -1;
	return 0;
}

/* What is mounted on a tree goes with it. */
int layers_drop(const struct spec *spec)
{
	for (size_t i = spec->tree_count; i > 0; i--)
		if (umount2(spec->trees[i - 1].target, MNT_DETACH))
			return fail("mount", "detaching %s", spec->trees[i - 1].target);
	return umount2(LAYERS, MNT_DETACH) ? fail("mount", "detaching the layers") : 0;
}

/* Puts the new root in place of the host's, of which nothing stays in sight. */
static int change_root(void)
{
	/* SAFETY: both are in the mount namespace that this process was cloned into. */
	if (syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/"))
		return fail("mount", "pivot_root");
	return 0;
}

int mounts_make(const struct spec *spec)
{
	struct mount_attr read_only = {.attr_set = MOUNT_ATTR_RDONLY};

	if (setgroups(0, NULL) || setresgid(0, 0, 0) || setresuid(0, 0, 0))
		return fail("ids", "becoming uid 0 of the sandbox");
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return fail("mount", "making the mounts private");
	if (mount("root", STAGING, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=4m"))
		return fail("mount", "the root's tmpfs");
	if (chdir(STAGING))
		return fail("mount", "the root's folder");
	umask(0);
	if (fill_root(spec) || change_root() || layers_make(spec))
		return -1;
	umask(022);
	if (syscall(SYS_mount_setattr, AT_FDCWD, "/", 0, &read_only, sizeof(read_only)))
		return fail("mount", "making the root read-only");
	return 0;
}

/* Mounts a detached mount, made by the host, on /snap, in place of an earlier one. */
int snapshot_attach(int mount_fd)
{
	while (!umount2(SNAPSHOT, MNT_DETACH))
		;
	if (syscall(SYS_move_mount, mount_fd, "", AT_FDCWD, SNAPSHOT, MOVE_MOUNT_F_EMPTY_PATH))
		return fail("snapshot", "move_mount");
	return 0;
}
