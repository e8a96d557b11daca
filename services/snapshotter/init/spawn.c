// SPDX-License-Identifier: Apache-2.0
/* Processes of the tree: the golden program with few rights or none, and CRIU with all of the
 * namespace's own. */
#include "init.h"

#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/capability.h>

#define LAST_PID "/proc/sys/kernel/ns_last_pid"
#define GOLDEN_PIDS "9999" /* the pids of a snapshot, far above those of the init and CRIU */
#define OUR_PIDS "1"	   /* CRIU's own never reach them, however often it is started */
#define LOG "/log/out"
#define CRIU "/criu/criu"
/* What a master needs that drops to another user, in the sandbox's user namespace. */
#define BIT(capability) (1ul << (capability))
#define CONTAINER_CAPABILITIES                                                        \
	(BIT(CAP_CHOWN) | BIT(CAP_DAC_OVERRIDE) | BIT(CAP_FOWNER) | BIT(CAP_FSETID) | \
	 BIT(CAP_KILL) | BIT(CAP_SETGID) | BIT(CAP_SETUID) | BIT(CAP_NET_BIND_SERVICE))

static int next_pids_after(const char *last)
{
	int fd = open(LAST_PID, O_WRONLY | O_CLOEXEC);
	bool written = fd >= 0 && write(fd, last, strlen(last)) == (ssize_t)strlen(last);

	if (fd >= 0)
		close(fd);
	return written ? 0 : fail("pids", "writing " LAST_PID);
}

static int join_tree(const struct spec *spec)
{
	for (size_t i = 0; i < spec->tree_join_count; i++)
		if (write(spec->tree_joins[i], "0", 1) != 1)
			return -1;
	return 0;
}

static int redirect(int output)
{
	int input = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (input < 0 || output < 0)
		return -1;
	return dup2(input, STDIN_FILENO) < 0 || dup2(output, STDOUT_FILENO) < 0 ||
			       dup2(output, STDERR_FILENO) < 0
		       ? -1
		       : 0;
}

static int forget_signals(void)
{
	sigset_t none;

	for (int number = 1; number < NSIG; number++)
		if (number != SIGKILL && number != SIGSTOP)
			signal(number, SIG_DFL);
	sigemptyset(&none);
	return sigprocmask(SIG_SETMASK, &none, NULL);
}

/* SAFETY: no right beyond these comes back: what is not bounded can't be gained by an exec. */
static int drop_rights(bool container)
{
	unsigned long kept = container ? CONTAINER_CAPABILITIES : 0;
	unsigned int id = container ? 0 : FUNCTION_ID, low = (unsigned int)kept;
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct rights[2] = {{.effective = low, .permitted = low}};

	for (int capability = 0; capability < 64; capability++)
		if (!(kept >> capability & 1) && prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) &&
		    errno != EINVAL)
			return -1;
	if (setgroups(0, NULL) || setresgid(id, id, id) || setresuid(id, id, id) ||
	    syscall(SYS_capset, &header, rights))
		return -1;
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

/* In the child: becomes the program, or tells errno through the pipe, which exec closes. */
static void become_program(const struct spec *spec, const struct program *program, int told)
{
	int log = open(LOG, O_WRONLY | O_APPEND | O_CLOEXEC);

	if (!join_tree(spec) && setsid() >= 0 && !redirect(log) && !forget_signals() &&
	    !drop_rights(program->container) && !chdir(program->cwd)) {
		dup3(told, 3, O_CLOEXEC);
		told = 3;
		close_range(4, ~0u, 0);
		execve(program->argv[0], program->argv, program->env);
	}
	if (write(told, &errno, sizeof(errno)) < 0)
		_exit(126);
	_exit(127);
}

/* Returns the child's pid once it has become the program; -1 with its errno when it could not. */
pid_t spawn_function(const struct spec *spec, const struct program *program)
{
	int told[2], failed = 0;
	pid_t pid;

	if (next_pids_after(GOLDEN_PIDS))
		return -1;
	if (pipe2(told, O_CLOEXEC))
		return fail("spawn", "pipe");
	pid = fork();
	if (pid == 0)
		become_program(spec, program, told[1]);
	close(told[1]);
	if (pid < 0) {
		close(told[0]);
		return fail("spawn", "fork");
	}
	if (read(told[0], &failed, sizeof(failed)) != sizeof(failed)) {
		close(told[0]);
		return pid;
	}
	close(told[0]);
	waitpid(pid, NULL, 0);
	errno = failed;
	return fail("spawn", "%s", program->argv[0]);
}

static void become_criu(const struct spec *spec, int socket_fd, int words_fd)
{
	char *const argv[] = {"criu", "swrk", "3", NULL};
	/* 130: no hardware breakpoints, whose register writes cost milliseconds in some guests */
	char *const env[] = {"PATH=/usr/sbin:/usr/bin", "CRIU_FAULT=130", "XDG_RUNTIME_DIR=/criu",
			     NULL};

	if (join_tree(spec) || setsid() < 0 || redirect(words_fd) || forget_signals() ||
	    dup2(socket_fd, 3) < 0)
		_exit(126);
	fcntl(3, F_SETFD, 0);
	close_range(4, ~0u, 0);
	execve(CRIU, argv, env);
	_exit(127);
}

/* Starts `criu swrk`; what it writes can be read from words_fd, without blocking it. */
pid_t spawn_criu(const struct spec *spec, int *request_fd, int *words_fd)
{
	int sockets[2], words[2];
	pid_t pid;

	if (next_pids_after(OUR_PIDS))
		return -1;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets))
		return fail("criu", "socketpair");
	if (pipe2(words, O_CLOEXEC | O_NONBLOCK)) {
		close(sockets[0]);
		close(sockets[1]);
		return fail("criu", "pipe");
	}
	pid = fork();
	if (pid == 0)
		become_criu(spec, sockets[1], words[1]);
	close(sockets[1]);
	close(words[1]);
	if (pid < 0) {
		close(sockets[0]);
		close(words[0]);
		return fail("criu", "fork");
	}
	*request_fd = sockets[0];
	*words_fd = words[0];
	return pid;
}
