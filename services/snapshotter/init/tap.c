// SPDX-License-Identifier: Apache-2.0
/*
 * The tap: a packet socket on the inner link that keeps what comes while the gate is closed, in
 * its kernel queue, and a packet socket on the host's end of the link to send it again. Only the
 * tap's filter is ever switched: un-binding or closing would wait for an RCU period.
 */
#include "init.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>

#define FRAME_HEADER sizeof(struct virtio_net_hdr)
#define LONGEST_FRAME (64 * 1024 + FRAME_HEADER)
#define SHORTEST_FRAME (FRAME_HEADER + ETH_HLEN + 40) /* the headers of IPv4 and TCP */
#define SYN_OR_ACK 0x12
#define SYN 0x02

static struct source tap = {.fd = -1};
static int link_fd = -1;
static bool watched, holding;
static uint16_t trigger_port;
static void (*on_first)(const struct first_packet *);
static uint8_t frame[LONGEST_FRAME];

#define LOAD(size, offset) BPF_STMT(BPF_LD | (size) | BPF_ABS, offset)
#define LOAD_X(size, offset) BPF_STMT(BPF_LD | (size) | BPF_IND, offset)
#define JUMP_EQUAL(value, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, yes, no)
#define JUMP_SET(value, yes, no) BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, value, yes, no)
#define RETURN(length) BPF_STMT(BPF_RET | BPF_K, length)

static int set_filter(struct sock_filter *filter, unsigned short length)
{
	struct sock_fprog program = {.len = length, .filter = filter};

	if (setsockopt(tap.fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)))
		return fail("tap", "filter");
	return 0;
}

static int filter_nothing(void)
{
	struct sock_filter filter[] = {RETURN(0)};

	return set_filter(filter, ARRAY_SIZE(filter));
}

/*
 * TCP to the trigger port, in IPv4 that is no later fragment, or plain IPv6: all of it, or first
 * packets only, SYNs that are no SYN-ACKs. Nothing when there is no such port.
 */
static int filter_port(bool all)
{
	struct sock_filter filter[] = {
		/* 0 */ LOAD(BPF_H, 12),
		/* 1 */ JUMP_EQUAL(ETH_P_IPV6, 11, 0),
		/* 2 */ JUMP_EQUAL(ETH_P_IP, 0, 9),
		/* 3 */ LOAD(BPF_B, 14 + 9),
		/* 4 */ JUMP_EQUAL(IPPROTO_TCP, 0, 7),
		/* 5 */ LOAD(BPF_H, 14 + 6),
		/* 6 */ JUMP_SET(0x1fff, 5, 0),
		/* 7 */ BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, 14),
		/* 8 */ LOAD_X(BPF_H, 14 + 2),
		/* 9 */ JUMP_EQUAL(trigger_port, 0, 2),
		/* 10 */ LOAD_X(BPF_B, 14 + 13),
		/* 11 */ BPF_STMT(BPF_JMP | BPF_JA, 6), /* to 18 */
		/* 12 */ RETURN(0),
		/* 13 */ LOAD(BPF_B, 14 + 6),
		/* 14 */ JUMP_EQUAL(IPPROTO_TCP, 0, 6),
		/* 15 */ LOAD(BPF_H, 14 + 40 + 2),
		/* 16 */ JUMP_EQUAL(trigger_port, 0, 4),
		/* 17 */ LOAD(BPF_B, 14 + 40 + 13),
		/* 18 */ BPF_STMT(BPF_ALU | BPF_AND | BPF_K, SYN_OR_ACK),
		/* 19 */ JUMP_EQUAL(SYN, 0, all ? 0 : 1),
		/* 20 */ RETURN(0xffff),
		/* 21 */ RETURN(0),
	};

	if (!trigger_port)
		return filter_nothing();
	return set_filter(filter, ARRAY_SIZE(filter));
}

/* Turns a kernel time stamp (CLOCK_REALTIME) into CLOCK_MONOTONIC. */
static uint64_t to_monotonic(const struct timespec *stamp)
{
	struct timespec real;
	uint64_t now = now_ns(), age;

	clock_gettime(CLOCK_REALTIME, &real);
	age = (uint64_t)(real.tv_sec - stamp->tv_sec) * NANOSECONDS + (uint64_t)real.tv_nsec -
	      (uint64_t)stamp->tv_nsec;
	return age < 10 * NANOSECONDS ? now - age : now; /* the clock was set meanwhile */
}

static uint64_t read_time(struct msghdr *message)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c))
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
			struct timespec stamp;

			memcpy(&stamp, CMSG_DATA(c), sizeof(stamp));
			return to_monotonic(&stamp);
		}
	return now_ns();
}

/* Receives one frame to the given place, and when it came; the flags are recvmsg's. */
static ssize_t receive(uint8_t *to, size_t room, int flags, uint64_t *time_ns)
{
	char control[128];
	struct iovec part = {to, room};
	struct msghdr message = {.msg_iov = &part,
				 .msg_iovlen = 1,
				 .msg_control = control,
				 .msg_controllen = sizeof(control)};
	ssize_t length = recvmsg(tap.fd, &message, flags | MSG_DONTWAIT);

	if (length >= 0)
		*time_ns = read_time(&message);
	return length;
}

/* Whether a frame with its headers complete is a first packet; the filter chose what comes here. */
static bool is_first(const uint8_t *with_header, ssize_t length)
{
	const uint8_t *ip = with_header + FRAME_HEADER + ETH_HLEN;
	size_t tcp = with_header[FRAME_HEADER + 12] == 0x86 ? 40 : (size_t)(ip[0] & 15) * 4;

	/* SAFETY: the flags are read only where the frame has them. */
	return length >= (ssize_t)SHORTEST_FRAME &&
	       length > (ssize_t)(FRAME_HEADER + ETH_HLEN + tcp + 13) &&
	       (ip[tcp + 13] & SYN_OR_ACK) == SYN;
}

static void read_client(const uint8_t *ethernet, struct first_packet *packet)
{
	const uint8_t *ip = ethernet + ETH_HLEN;
	bool v6 = ethernet[12] == 0x86;
	const uint8_t *tcp = v6 ? ip + 40 : ip + (ip[0] & 15) * 4;
	char address[INET6_ADDRSTRLEN];

	inet_ntop(v6 ? AF_INET6 : AF_INET, v6 ? ip + 8 : ip + 12, address, sizeof(address));
	snprintf(packet->client, sizeof(packet->client), v6 ? "[%s]:%u" : "%s:%u", address,
		 tcp[0] << 8 | tcp[1]);
}

/* Takes an error such as ENETDOWN, which epoll would otherwise tell without end. */
static void clear_error(void)
{
	int error;
	socklen_t length = sizeof(error);

	getsockopt(tap.fd, SOL_SOCKET, SO_ERROR, &error, &length);
}

static void drop_first(void)
{
	recv(tap.fd, frame, 1, MSG_DONTWAIT);
}

/* Looks at the first held frame and leaves it in the queue; tells once for each tap_watch(). */
static void look(struct source *source)
{
	struct first_packet packet = {0};
	ssize_t length = receive(frame, sizeof(frame), MSG_PEEK, &packet.time_ns);

	(void)source;
	clear_error();
	if (!watched || length < 0)
		return;
	if (!is_first(frame, length)) { /* at the head of the queue it would hide all others */
		drop_first();
		return;
	}
	tap_watch(false);
	read_client(frame + FRAME_HEADER, &packet);
	on_first(&packet);
}

/* The two sockets were made by the host: the tap's large buffer needs its rights. */
int tap_attach(int tap_fd, int host_link_fd, uint16_t port,
	       void (*first)(const struct first_packet *))
{
	int one = 1;
	struct timeval patience = {.tv_usec = 200 * 1000};
	struct sockaddr_ll address = {.sll_family = AF_PACKET,
				      .sll_protocol = htons(ETH_P_ALL),
				      .sll_ifindex = (int)if_nametoindex(INNER_LINK)};

	loop_close(&tap);
	if (link_fd >= 0)
		close(link_fd);
	link_fd = host_link_fd;
	trigger_port = port;
	on_first = first;
	holding = false;
	loop_add(&tap, tap_fd, look);
	tap_watch(false);
	if (filter_nothing() ||
	    setsockopt(tap_fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof(one)) ||
	    setsockopt(tap_fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one)) ||
	    setsockopt(tap_fd, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof(one)) ||
	    setsockopt(link_fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof(one)) ||
	    setsockopt(link_fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)))
		return fail("tap", "options");
	if (bind(tap_fd, (struct sockaddr *)&address, sizeof(address)))
		return fail("tap", "bind to " INNER_LINK);
	return 0;
}

/* Sends a frame into the sandbox; returns how many were sent. */
static int send_again(const uint8_t *bytes, ssize_t length)
{
	if (send(link_fd, bytes, (size_t)length, 0) == length)
		return 1;
	last_words("a held frame of %zd bytes was not sent: errno %d", length, errno);
	return 0;
}

static void drain(void)
{
	while (recv(tap.fd, frame, 1, MSG_DONTWAIT) >= 0)
		;
}

/*
 * What is held already stays held: an evict holds before the next arming does. What is in the queue
 * of a tap that held nothing is stale, queued by a processor that still ran the old filter.
 */
int tap_hold(void)
{
	if (!holding)
		drain();
	if (filter_port(false))
		return -1;
	holding = true;
	return 0;
}

/* Holds whatever clients send, while it is found out whether the tree can be ended. */
int tap_hold_all(void)
{
	drain();
	if (filter_port(true))
		return -1;
	holding = true;
	return 0;
}

/*
 * Whether a client of the old tree is heard since: with anything but a first packet, or with one
 * that came before the gate had closed, which the old tree may have answered. All of it stays held:
 * it is sent again while the gate is closed, and so comes to the tap once more.
 */
bool tap_heard_old_clients(uint64_t closed_ns)
{
	static uint8_t kept[256 * 1024];
	size_t used = 0;
	bool heard = false;
	uint64_t time_ns;
	ssize_t length;

	while (sizeof(kept) - used > LONGEST_FRAME + sizeof(length) &&
	       (length = receive(kept + used + sizeof(length), LONGEST_FRAME, 0, &time_ns)) > 0) {
		heard |= !is_first(kept + used + sizeof(length), length) || time_ns < closed_ns;
		memcpy(kept + used, &length, sizeof(length));
		used += sizeof(length) + (size_t)length;
	}
	for (size_t at = 0; at < used; at += sizeof(length) + (size_t)length) {
		memcpy(&length, kept + at, sizeof(length));
		send_again(kept + at + sizeof(length), length);
	}
	return heard || sizeof(kept) - used <= LONGEST_FRAME + sizeof(length);
}

void tap_watch(bool wanted)
{
	watched = wanted;
	loop_pause(&tap, !watched);
}

/*
 * Stops holding and sends what was held again; the gate is open. A frame that came between the
 * gate's opening and the swap of the filter was answered already and is sent a second time: to a
 * socket in SYN_RECV or ESTABLISHED that does no harm. Frames of an old tree's clients, which were
 * reset, are left out unless it goes on.
 */
int tap_release(bool old_clients_too)
{
	int sent = 0;
	ssize_t length;

	filter_nothing();
	holding = false;
	while ((length = recv(tap.fd, frame, sizeof(frame), MSG_DONTWAIT)) > 0)
		if (old_clients_too || is_first(frame, length))
			sent += send_again(frame, length);
	return sent;
}
