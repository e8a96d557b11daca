// SPDX-License-Identifier: Apache-2.0
/*
 * CRIU in a sandbox's namespaces, with the host's rights: all of them but the user namespace. It
 * takes mapped deleted files and seccomp filters, which a dump from inside refuses.
 */
#include "init.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define ENTERED (CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)

extern char **environ;

static int complain(const char *what)
{
	fprintf(stderr, "aether-init enter: %s: %s\n", what, strerror(errno));
	return 125;
}

/* SAFETY: executed by descriptor; inside, only read-only binds of the host lie on its library path.
 */
static void become_criu(int criu_fd, char *socket_fd)
{
	char *argv[] = {"criu", "swrk", socket_fd, NULL};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	syscall(SYS_execveat, criu_fd, "", argv, environ, AT_EMPTY_PATH);
	_exit(complain("execveat"));
}

int enter(int argc, char **argv)
{
	int status;
	pid_t pid;

	if (argc != 3) {
		fprintf(stderr, "usage: aether-init enter PIDFD CRIU-FD SOCKET-FD\n");
		return 2;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (setns(atoi(argv[0]), ENTERED))
		return complain("setns");
	if (chdir("/"))
		return complain("chdir");
	pid = fork();
	if (pid < 0)
		return complain("fork");
	if (pid == 0)
		become_criu(atoi(argv[1]), argv[2]);
	if (waitpid(pid, &status, 0) != pid)
		return complain("waitpid");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
