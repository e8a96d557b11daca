// SPDX-License-Identifier: Apache-2.0
/* The epoll loop. One event is taken at a time, so that a handler may close any source. */
#include "init.h"

#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

static int epoll_fd = -1;

void loop_open(void)
{
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd < 0)
		die("epoll_create1: errno %d", errno);
}

void loop_add(struct source *source, int fd, void (*ready)(struct source *source))
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = source};

	source->fd = fd;
	source->ready = ready;
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event))
		die("epoll_ctl add: errno %d", errno);
}

void loop_pause(struct source *source, bool paused)
{
	struct epoll_event event = {.events = paused ? 0 : EPOLLIN, .data.ptr = source};

	if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, source->fd, &event))
		die("epoll_ctl mod: errno %d", errno);
}

/* Forgets and closes the source; one that is closed already stays so. */
void loop_close(struct source *source)
{
	if (source->fd < 0)
		return;
	epoll_ctl(epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
	close(source->fd);
	source->fd = -1;
}

void loop_run(void)
{
	for (;;) {
		struct epoll_event event;

		if (epoll_wait(epoll_fd, &event, 1, -1) == 1) {
			struct source *source = event.data.ptr;

			source->ready(source);
		} else if (errno != EINTR) {
			die("epoll_wait: errno %d", errno);
		}
	}
}

uint64_t now_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * NANOSECONDS + (uint64_t)time.tv_nsec;
}

void timer_open(struct source *timer, void (*ready)(struct source *source))
{
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);

	if (fd < 0)
		die("timerfd_create: errno %d", errno);
	loop_add(timer, fd, ready);
}

void timer_at(struct source *timer, uint64_t when_ns)
{
	struct itimerspec when = {.it_value = {.tv_sec = (time_t)(when_ns / NANOSECONDS),
					       .tv_nsec = (long)(when_ns % NANOSECONDS)}};

	timerfd_settime(timer->fd, TFD_TIMER_ABSTIME, &when, NULL);
}

bool timer_fired(struct source *timer)
{
	uint64_t times;

	return read(timer->fd, &times, sizeof(times)) == sizeof(times);
}
