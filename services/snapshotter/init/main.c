// SPDX-License-Identifier: Apache-2.0
/* The three uses of the binary, and the init's own set-up: a network of its own, signals, loop. */
#include "init.h"

#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* Kernel settings inside, each in the sandbox's own namespaces. */
static const struct {
	const char *path, *value;
	bool needed;
} settings[] = {
	/* restores bind the inner addresses while the gate is closed */
	{"/proc/sys/net/ipv4/ip_nonlocal_bind", "1", true},
	{"/proc/sys/net/ipv6/ip_nonlocal_bind", "1", false}, /* a host may have IPv6 off */
	/* a new namespace has the host's; a closed gate must not turn the sandbox into a router */
	{"/proc/sys/net/ipv4/ip_forward", "0", true},
	{"/proc/sys/net/ipv6/conf/all/forwarding", "0", false},
	/* the last instance's TIME_WAIT would refuse the next one's listen */
	{"/proc/sys/net/ipv4/tcp_max_tw_buckets", "0", true},
	{"/proc/sys/net/core/somaxconn", "4096", true},
	/* functions are not root and may have any trigger port */
	{"/proc/sys/net/ipv4/ip_unprivileged_port_start", "0", true},
	{"/proc/sys/user/max_user_namespaces", "0", true},
};

static int write_setting(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), written;

	if (fd < 0)
		return -1;
	written = write(fd, value, strlen(value)) == (ssize_t)strlen(value) ? 0 : -1;
	close(fd);
	return written;
}

static void set_up_kernel(void)
{
	struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	for (size_t i = 0; i < ARRAY_SIZE(settings); i++)
		if (write_setting(settings[i].path, settings[i].value) && settings[i].needed)
			die("cannot set %s: %s", settings[i].path, strerror(errno));
	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request)) /* restores fail while it is down */
		die("cannot bring lo up: %s", strerror(errno));
	close(fd);
}

static void reap(struct source *source)
{
	struct signalfd_siginfo signals[8];
	int status;
	pid_t pid;

	if (read(source->fd, signals, sizeof(signals)) < 0 && errno != EAGAIN)
		die("signalfd: %s", strerror(errno));
	while ((pid = waitpid(-1, &status, WNOHANG | __WALL)) > 0)
		machine_child_ended(pid, status);
	if (pid < 0 && errno == ECHILD)
		machine_no_child_left();
}

static void watch_children(void)
{
	static struct source children;
	sigset_t child;
	int fd;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);
	fd = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		die("signalfd: %s", strerror(errno));
	loop_add(&children, fd, reap);
}

void init_run(const struct spec *spec)
{
	prctl(PR_SET_NAME, "aether-init");
	prctl(PR_SET_DUMPABLE, 0);
	loop_open();
	watch_children();
	set_up_kernel();
	machine_open(spec);
	ctl_open(spec->control);
	loop_run();
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "launch"))
		return launch();
	if (argc >= 2 && !strcmp(argv[1], "enter"))
		return enter(argc - 2, argv + 2);
	fprintf(stderr, "usage: aether-init launch | enter PIDFD CRIU-FD SOCKET-FD\n");
	return 2;
}
