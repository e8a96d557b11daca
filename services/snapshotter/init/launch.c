// SPDX-License-Identifier: Apache-2.0
/*
 * The host half: reads the specification, opens what the sandbox may see while it still has the
 * host's rights, clones the init into namespaces of its own, and maps its ids.
 */
#include "init.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/mount.h>

#define SANDBOX_NAMESPACES \
	(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS)
#define IDS 65536

/* Opens a detached copy of a mount tree of the host; the sandbox could not open it itself. */
static int open_source(const char *path, const char *flags)
{
	struct mount_attr attributes = {.attr_set = MOUNT_ATTR_NOSUID, .propagation = MS_PRIVATE};
	int fd = (int)syscall(SYS_open_tree, AT_FDCWD, path,
			      OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);

	if (fd < 0)
		return fail("bind", "open_tree %s", path);
	if (!strchr(flags, 'd'))
		attributes.attr_set |= MOUNT_ATTR_NODEV;
	if (strchr(flags, 'r'))
		attributes.attr_set |= MOUNT_ATTR_RDONLY;
	if (strchr(flags, 'x'))
		attributes.attr_set |= MOUNT_ATTR_NOEXEC;
	if (syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &attributes,
		    sizeof(attributes)))
		return fail("bind", "mount_setattr %s", path);
	return fd;
}

static int need(const struct line *line, const char *key, char **value)
{
	*value = (char *)line_value(line, key);
	errno = 0;
	return *value ? 0 : fail("specification", "%s without %s", line->verb, key);
}

static int read_bind(struct spec *spec, const struct line *line)
{
	struct bind *bind = &spec->binds[spec->bind_count];
	char *source, *flags;

	errno = 0;
	if (spec->bind_count == MAX_BINDS)
		return fail("specification", "more than %d binds", MAX_BINDS);
	if (need(line, "source", &source) || need(line, "target", &bind->target) ||
	    need(line, "flags", &flags))
		return -1;
	bind->on_tree = strchr(flags, 't');
	bind->fd = open_source(source, flags);
	spec->bind_count++;
	return bind->fd < 0 ? -1 : 0;
}

static int read_link(struct spec *spec, const struct line *line)
{
	struct link *link = &spec->links[spec->link_count];

	errno = 0;
	if (spec->link_count == ARRAY_SIZE(spec->links))
		return fail("specification", "too many links");
	spec->link_count++;
	return need(line, "path", &link->path) || need(line, "to", &link->to) ? -1 : 0;
}

static int read_tree(struct spec *spec, const struct line *line)
{
	struct tree *tree = &spec->trees[spec->tree_count];
	char *mode;

	errno = 0;
	if (spec->tree_count == MAX_TREES)
		return fail("specification", "more than %d trees", MAX_TREES);
	if (need(line, "tag", &tree->tag) || need(line, "target", &tree->target) ||
	    need(line, "mode", &mode))
		return -1;
	tree->mode = (mode_t)strtoul(mode, NULL, 8);
	tree->owner = (uid_t)line_number(line, "owner", 0);
	spec->tree_count++;
	return 0;
}

static int read_lower(struct spec *spec, const struct line *line)
{
	struct tree *tree = spec->tree_count ? &spec->trees[spec->tree_count - 1] : NULL;
	char *source;

	errno = 0;
	if (need(line, "source", &source))
		return -1;
	if (!tree || tree->lowers == MAX_LOWERS)
		return fail("specification", "a lower layer without a tree, or too many");
	tree->lower_fds[tree->lowers] = open_source(source, "r");
	return tree->lower_fds[tree->lowers++] < 0 ? -1 : 0;
}

static int read_held(struct spec *spec, const struct line *line)
{
	struct held *held = &spec->held[spec->held_count];

	errno = 0;
	if (spec->held_count == MAX_HELD)
		return fail("specification", "more than %d held files", MAX_HELD);
	held->inode = (unsigned long)line_number(line, "inode", 0);
	spec->held_count++;
	return need(line, "tag", &held->tag) || need(line, "path", &held->path) ? -1 : 0;
}

static int read_join(int *fds, size_t *count, const struct line *line)
{
	errno = 0;
	if (*count == MAX_JOINS)
		return fail("specification", "too many control groups");
	fds[(*count)++] = (int)line_number(line, "fd", -1);
	return 0;
}

static int read_line(struct spec *spec, const struct line *line)
{
	struct {
		const char *verb;
		int *fd;
	} descriptors[] = {{"control", &spec->control},
			   {"words", &spec->words},
			   {"tree-kill", &spec->kill},
			   {"oom-event", &spec->oom_event},
			   {"oom-counter", &spec->oom_counter}};

	for (size_t i = 0; i < ARRAY_SIZE(descriptors); i++)
		if (!strcmp(line->verb, descriptors[i].verb)) {
			*descriptors[i].fd = (int)line_number(line, "fd", -1);
			return 0;
		}
	if (!strcmp(line->verb, "join"))
		return read_join(spec->joins, &spec->join_count, line);
	if (!strcmp(line->verb, "tree-join"))
		return read_join(spec->tree_joins, &spec->tree_join_count, line);
	if (!strcmp(line->verb, "hostname"))
		return need(line, "name", &spec->hostname);
	if (!strcmp(line->verb, "ids"))
		spec->id_base = line_number(line, "base", 0);
	else if (!strcmp(line->verb, "layers"))
		spec->layers_size = line_number(line, "size", 0);
	else if (!strcmp(line->verb, "bind"))
		return read_bind(spec, line);
	else if (!strcmp(line->verb, "link"))
		return read_link(spec, line);
	else if (!strcmp(line->verb, "tree"))
		return read_tree(spec, line);
	else if (!strcmp(line->verb, "held"))
		return read_held(spec, line);
	else if (!strcmp(line->verb, "lower"))
		return read_lower(spec, line);
	else
		return fail("specification", "unknown line %.40s", line->verb);
	return 0;
}

static int read_specification(struct spec *spec)
{
	static char bytes[256 * 1024]; /* the specification points into it */
	size_t length = 0;
	ssize_t got;
	char *rest = NULL;

	spec->control = spec->words = spec->kill = spec->oom_event = spec->oom_counter = -1;
	while ((got = read(STDIN_FILENO, bytes + length, sizeof(bytes) - 1 - length)) > 0)
		length += (size_t)got;
	if (got < 0 || length == sizeof(bytes) - 1)
		return fail("specification", "cannot be read, or is too long");
	for (char *next = strtok_r(bytes, "\n", &rest); next; next = strtok_r(NULL, "\n", &rest)) {
		struct line line;

		if (line_parse(next, &line) || read_line(spec, &line))
			return -1;
	}
	errno = 0;
	if (spec->control < 0 || spec->kill < 0 || spec->id_base <= 0 || !spec->hostname)
		return fail("specification", "control, tree-kill, hostname or ids is missing");
	return 0;
}

static int join_groups(const struct spec *spec)
{
	for (size_t i = 0; i < spec->join_count; i++)
		if (write(spec->joins[i], "0", 1) != 1)
			return fail("control-group", "joining group %zu", i);
	return 0;
}

static int map_ids(pid_t pid, const char *file, long base)
{
	char path[64], map[64];
	int length = snprintf(map, sizeof(map), "0 %ld %d", base, IDS), fd, written;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return fail("ids", "%s", file);
	written = write(fd, map, (size_t)length) == length ? 0 : fail("ids", "%s", file);
	close(fd);
	return written;
}

static void tell_failure(int fd)
{
	struct text text = {0};

	text_add(&text, "error");
	text_pair(&text, "step", failure.step);
	text_add(&text, " errno=%d", failure.errnum);
	text_pair(&text, "detail", failure.detail);
	text_add(&text, "\n");
	if (write(fd, text.bytes, text.length) < 0)
		_exit(1);
}

static void keep_descriptors(const struct spec *spec)
{
	fcntl(spec->control, F_SETFD, FD_CLOEXEC);
	fcntl(spec->kill, F_SETFD, FD_CLOEXEC);
	for (size_t i = 0; i < spec->join_count; i++)
		close(spec->joins[i]);
	for (size_t i = 0; i < spec->tree_join_count; i++)
		fcntl(spec->tree_joins[i], F_SETFD, FD_CLOEXEC);
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		dup2(open("/dev/null", O_RDWR | O_CLOEXEC), fd);
}

/* In the clone: waits for its ids, builds the sandbox, says so, and becomes the init. */
static void become_init(const struct spec *spec, int go, int ready)
{
	char byte;

	if (read(go, &byte, 1) != 1)
		_exit(1);
	close(go);
	last_words_to(spec->words);
	if (setsid() < 0 || mounts_make(spec)) {
		tell_failure(ready);
		_exit(1);
	}
	if (sethostname(spec->hostname, strlen(spec->hostname))) {
		fail("hostname", "%s", spec->hostname);
		tell_failure(ready);
		_exit(1);
	}
	keep_descriptors(spec);
	if (write(ready, "ok\n", 3) != 3)
		_exit(1);
	close(ready);
	init_run(spec);
}

/* SAFETY: pid is our own child, above 1 since clone() returned it to its parent. */
static int abandon(pid_t pid)
{
	if (pid > 1) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	return -1;
}

static int await_init(pid_t pid, int ready)
{
	char answer[sizeof(((struct text *)0)->bytes)];
	ssize_t length = read(ready, answer, sizeof(answer));

	errno = 0;
	if (length >= 3 && !memcmp(answer, "ok\n", 3)) {
		printf("pid=%d\n", pid);
		return fflush(stdout);
	}
	abandon(pid);
	if (length <= 0)
		return fail("create", "the init died without a word");
	if (write(STDOUT_FILENO, answer, (size_t)length) != length)
		return fail("create", "cannot tell why");
	exit(1);
}

static int clone_init(const struct spec *spec)
{
	int go[2], ready[2];
	pid_t pid;

	if (pipe2(go, O_CLOEXEC) || pipe2(ready, O_CLOEXEC))
		return fail("create", "pipe");
	pid = (pid_t)syscall(SYS_clone, SANDBOX_NAMESPACES | SIGCHLD, NULL, NULL, NULL, NULL);
	if (pid < 0)
		return fail("create", "clone");
	if (pid == 0) {
		close(go[1]);
		close(ready[0]);
		become_init(spec, go[0], ready[1]);
	}
	close(go[0]);
	close(ready[1]);
	if (map_ids(pid, "uid_map", spec->id_base) || map_ids(pid, "gid_map", spec->id_base))
		return abandon(pid);
	if (write(go[1], "x", 1) != 1)
		return abandon(pid);
	return await_init(pid, ready[0]);
}

int launch(void)
{
	static struct spec spec;

	if (read_specification(&spec) || join_groups(&spec) || clone_init(&spec)) {
		tell_failure(STDOUT_FILENO);
		return 1;
	}
	return 0;
}
