/* SPDX-License-Identifier: Apache-2.0 */
/* Attaching: from the path of a side socket to a channel whose region is mapped and checked. */
#ifndef AETHERLESS_ATTACH_H
#define AETHERLESS_ATTACH_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>

#include "../../services/ipc/ring/native/waiting.h"

#define AETHER_PAGE 4096u
#define AETHER_VERSION 1u
#define AETHER_SMALLEST_RING (64u << 10)
#define AETHER_LARGEST_RING (1u << 30)
#define AETHER_LONGEST_LINE 1024 /* of what the service says on the side socket */
#define AETHER_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define AETHER_SECOND 1000000000u
#define AETHER_FOREVER UINT64_MAX

enum aether_direction { AETHER_TO_PEER = 0, AETHER_FROM_PEER = 1 };

/* Shared memory that was handed out, mapped. */
struct aether_region {
	int descriptors[3]; /* the memory, this side's wake, the other side's wake */
	uint8_t *memory;
	size_t bytes;
	uint64_t ring_bytes;
	uint64_t generation;
};

/* One attachment. */
struct aether_channel {
	int control; /* its end is the attachment's end */
	struct aether_region region;
	struct aether_ring in;	/* records to this side */
	struct aether_ring out; /* records from it */
	/* Told what else the service says, with descriptors that it owns; NULL passes it over. */
	void (*listener)(struct aether_channel *channel, const char *said, int descriptors[3]);
};

/* Return one end of a ring in a mapped region of a checked size. */
static inline struct aether_ring aether_end(uint8_t *memory, uint64_t ring_bytes,
					    enum aether_direction direction)
{
	static const struct aether_checksum_way *way; /* the same whoever writes it */
	if (!__atomic_load_n(&way, __ATOMIC_ACQUIRE))
		__atomic_store_n(&way, aether_choose_checksum(), __ATOMIC_RELEASE);
	return (struct aether_ring){.control = memory + AETHER_PAGE * (1 + direction),
				    .data = memory + 3 * AETHER_PAGE + direction * ring_bytes,
				    .closed = memory + AETHER_CLOSED_OFFSET,
				    .checksum = way->function,
				    .size = ring_bytes};
}

/* Regions */

static inline void aether_close_all(int descriptors[3])
{
	for (int place = 0; place < 3; place++)
		if (descriptors[place] >= 0)
			close(descriptors[place]);
}

/* Let go of a region's memory and descriptors. */
static inline void aether_unmap(struct aether_region *region)
{
	if (region->memory)
		munmap(region->memory, region->bytes);
	region->memory = NULL;
	aether_close_all(region->descriptors);
}

static inline int aether_check_header(struct aether_region *region)
{
	uint32_t version;
	uint64_t numbers[3]; /* bytes of the region, of a ring, generation */
	memcpy(&version, region->memory + 8, sizeof(version));
	memcpy(numbers, region->memory + 16, sizeof(numbers));
	region->generation = numbers[2];
	return memcmp(region->memory, "AETHRING", 8) || version != AETHER_VERSION ||
			       numbers[0] != region->bytes || numbers[1] != region->ring_bytes
		       ? EINVAL
		       : 0;
}

/* Check that a region is sealed and of its size, and map it; 0 or an errno. */
static inline int aether_map(struct aether_region *region, uint64_t ring)
{
	struct stat about;
	int seals = fcntl(region->descriptors[0], F_GET_SEALS);
	if (region->descriptors[2] < 0 || seals < 0 || (seals & AETHER_SEALS) != AETHER_SEALS ||
	    ring < AETHER_SMALLEST_RING || ring > AETHER_LARGEST_RING || ring & (ring - 1) ||
	    fstat(region->descriptors[0], &about) ||
	    (uint64_t)about.st_size != 3 * AETHER_PAGE + 2 * ring)
		return EINVAL;
	/* SAFETY: the seals hold, so that the mapping can't lose its pages (SIGBUS). */
	void *memory = mmap(NULL, (size_t)about.st_size, PROT_READ | PROT_WRITE, MAP_SHARED,
			    region->descriptors[0], 0);
	if (memory == MAP_FAILED)
		return errno;
	region->memory = memory;
	region->bytes = (size_t)about.st_size;
	region->ring_bytes = ring;
	return aether_check_header(region);
}

/* What the service says */

/* Find the value of " NAME=value" in a line; NULL when it is not there. */
static inline const char *aether_field(const char *said, const char *name)
{
	size_t length = strlen(name);
	for (const char *at = strchr(said, ' '); at; at = strchr(at + 1, ' '))
		if (strncmp(at + 1, name, length) == 0 && at[1 + length] == '=')
			return at + length + 2;
	return NULL;
}

/* Read a field that is a number; 0 when it is not there. */
static inline uint64_t aether_number(const char *said, const char *name)
{
	const char *value = aether_field(said, name);
	return value ? strtoull(value, NULL, 10) : 0;
}

/* Copy a field, terminated; false when it is not there or does not fit. */
static inline bool aether_text(const char *said, const char *name, char *target, size_t room)
{
	const char *value = aether_field(said, name);
	size_t length = value ? strcspn(value, " ") : 0;
	if (!value || length >= room)
		return false;
	memcpy(target, value, length);
	target[length] = 0;
	return true;
}

/* Whether a line begins with a word. */
static inline bool aether_says(const char *said, const char *word)
{
	size_t length = strlen(word);
	return strncmp(said, word, length) == 0 && (said[length] == ' ' || said[length] == 0);
}

static inline void aether_keep_descriptors(int descriptors[3], struct msghdr *message)
{
	struct cmsghdr *part = CMSG_FIRSTHDR(message);
	if (!part || part->cmsg_type != SCM_RIGHTS)
		return;
	size_t length = part->cmsg_len - CMSG_LEN(0), room = 3 * sizeof(int);
	memcpy(descriptors, CMSG_DATA(part), length < room ? length : room);
}

/*
 * Receive what the service says, terminated, and the descriptors that come with it, -1 for those
 * that don't. 0 or an errno, ECONNRESET at the end.
 */
static inline int aether_receive_line(int control, char said[AETHER_LONGEST_LINE + 1],
				      int descriptors[3], int flags)
{
	union {
		char bytes[CMSG_SPACE(3 * sizeof(int))];
		struct cmsghdr aligned;
	} ancillary;
	struct iovec part = {said, AETHER_LONGEST_LINE};
	struct msghdr message = {.msg_iov = &part,
				 .msg_iovlen = 1,
				 .msg_control = &ancillary,
				 .msg_controllen = sizeof(ancillary)};
	descriptors[0] = descriptors[1] = descriptors[2] = -1;
	ssize_t length = recvmsg(control, &message, MSG_CMSG_CLOEXEC | flags);
	if (length <= 0)
		return length == 0 ? ECONNRESET : errno;
	said[length] = 0;
	aether_keep_descriptors(descriptors, &message);
	return 0;
}

/* Attaching */

static inline int aether_connect(struct aether_channel *channel, const char *path)
{
	const struct timeval limit = {5, 0};
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof(address.sun_path))
		return ENAMETOOLONG;
	strcpy(address.sun_path, path);
	channel->control = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (channel->control < 0)
		return errno;
	setsockopt(channel->control, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return connect(channel->control, (struct sockaddr *)&address, sizeof(address)) ? errno : 0;
}

/* The errno that stands for a refusal. */
static inline int aether_refusal(const char *said)
{
	if (strstr(said, "reason=CHANNEL_ATTACHED"))
		return EBUSY;
	return strstr(said, "reason=CHANNEL_CLOSED") ? EPIPE : EACCES;
}

static inline int aether_try_attach(struct aether_channel *channel, const char *path)
{
	char said[AETHER_LONGEST_LINE + 1];
	int failed = aether_connect(channel, path);
	if (!failed)
		failed =
			aether_receive_line(channel->control, said, channel->region.descriptors, 0);
	if (failed)
		return failed;
	if (!aether_says(said, "ok"))
		return aether_refusal(said);
	return aether_map(&channel->region, aether_number(said, "ring_bytes"));
}

/* Let go of the region, the wakes and the control socket. */
static inline void aether_detach(struct aether_channel *channel)
{
	aether_unmap(&channel->region);
	if (channel->control >= 0)
		close(channel->control);
}

/*
 * Attach once; path NULL is what AETHER_CHANNEL names. Returns 0, or an errno and nothing is left
 * open: ENOENT, ECONNREFUSED, ECONNRESET or EPIPE when nobody can be attached now, EBUSY when
 * another process is (CHANNEL_ATTACHED), EACCES when the service knows this one for none of the
 * function's (PEER_NOT_ALLOWED), EINVAL when there is no path or what came is no region.
 */
static inline int aether_attach(struct aether_channel *channel, const char *path)
{
	*channel = (struct aether_channel){.control = -1, .region.descriptors = {-1, -1, -1}};
	if (!path)
		path = getenv("AETHER_CHANNEL");
	int failed = path && *path ? aether_try_attach(channel, path) : EINVAL;
	if (failed) {
		aether_detach(channel);
		return failed;
	}
	uint8_t *memory = channel->region.memory;
	channel->in = aether_end(memory, channel->region.ring_bytes, AETHER_TO_PEER);
	channel->out = aether_end(memory, channel->region.ring_bytes, AETHER_FROM_PEER);
	return 0;
}

#endif
