/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ringing a doorbell that a peer who is not trusted has too.
 *
 * Both sides share the eventfd's open file description, and so its flags: a peer may take
 * O_NONBLOCK away and fill the counter, and a write would wait for as long as it likes. What the
 * kernel itself adds when asynchronous I/O has completed (IOCB_FLAG_RESFD of io_submit(2)) never
 * waits. So a side that is wary reads nothing from /dev/null, and has the end of that rung for.
 */
#ifndef AETHER_DOORBELL_H
#define AETHER_DOORBELL_H

#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define AETHER_BELLS 16

/* Zero while this process is not wary; its users hold the interpreter's lock. */
static aio_context_t aether_belfry;
static int aether_nothing = -1;

/* Ring without waiting from now on, in all of this process; -1 with errno set when refused. */
static int aether_be_wary(void)
{
	if (aether_belfry)
		return 0;
	if (aether_nothing < 0)
		aether_nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
	return aether_nothing < 0 ? -1 : (int)syscall(SYS_io_setup, AETHER_BELLS, &aether_belfry);
}

/* Add one to an eventfd; -1 with errno set when it is none. */
static int aether_ring_warily(int doorbell)
{
	static char nowhere;
	struct iocb bell = {.aio_lio_opcode = IOCB_CMD_PREAD,
			    .aio_fildes = (uint32_t)aether_nothing,
			    .aio_buf = (uintptr_t)&nowhere,
			    .aio_nbytes = 1,
			    .aio_flags = IOCB_FLAG_RESFD,
			    .aio_resfd = (uint32_t)doorbell};
	struct iocb *bells[] = {&bell};
	struct io_event ended[AETHER_BELLS];
	struct timespec no_time = {0, 0};
	if (syscall(SYS_io_submit, aether_belfry, 1, bells) < 0)
		return -1;
	return syscall(SYS_io_getevents, aether_belfry, 0, AETHER_BELLS, ended, &no_time) < 0 ? -1
											      : 0;
}

#endif
