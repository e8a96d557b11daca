// SPDX-License-Identifier: Apache-2.0
/* The TCP sockets of the sandbox's network namespace: listed, judged and ended by inet_diag. */
#include "init.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/bpf.h> /* the states of TCP, with NEW_SYN_RECV */
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h>

#ifndef SOCK_DESTROY
#define SOCK_DESTROY 21
#endif
#define STATE(state) (1u << BPF_TCP_##state)
#define CONNECTED                                                                       \
	(STATE(ESTABLISHED) | STATE(SYN_SENT) | STATE(SYN_RECV) | STATE(NEW_SYN_RECV) | \
	 STATE(FIN_WAIT1) | STATE(FIN_WAIT2) | STATE(CLOSE_WAIT) | STATE(LAST_ACK) |    \
	 STATE(CLOSING) | STATE(TIME_WAIT))
#define ENDED_AT_ONCE 512
#define FRESH_MS 1000
#define FRESH_HELD_MS 200
/* places in a "Tcp:" line of /proc/net/snmp: PassiveOpens, OutRsts */
#define PASSIVE_OPENS 6
#define RESETS_SENT 14

enum side { LOOPBACK, INNER, OUTSIDE };

struct request {
	struct nlmsghdr header;
	struct inet_diag_req_v2 query;
};
/* info is NULL for sockets that have none: a half-open one, one in TIME_WAIT. */
typedef void visitor(const struct inet_diag_msg *socket, const struct tcp_info *info, void *data);

static uint8_t inner4[4], inner6[16];
static bool has_inner6;

/* Addresses that do not parse match nothing; an empty ipv6 means that there is none. */
void sockets_set_inner(const char *ipv4, const char *ipv6)
{
	memset(inner4, 0, sizeof(inner4));
	inet_pton(AF_INET, ipv4, inner4);
	has_inner6 = inet_pton(AF_INET6, ipv6, inner6) == 1;
}

static enum side side_of_ipv4(const uint8_t *address)
{
	if (address[0] == 127)
		return LOOPBACK;
	return memcmp(address, inner4, sizeof(inner4)) ? OUTSIDE : INNER;
}

/* Where the socket's peer is. */
static enum side side_of(const struct inet_diag_msg *socket)
{
	static const uint8_t loopback[16] = {[15] = 1};
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
	uint8_t peer[16];

	/* SAFETY: idiag_dst has 16 bytes in every family. */
	memcpy(peer, socket->id.idiag_dst, sizeof(peer));
	if (socket->idiag_family == AF_INET)
		return side_of_ipv4(peer);
	if (!memcmp(peer, mapped, sizeof(mapped)))
		return side_of_ipv4(peer + sizeof(mapped));
	if (!memcmp(peer, loopback, sizeof(loopback)))
		return LOOPBACK;
	return has_inner6 && !memcmp(peer, inner6, sizeof(inner6)) ? INNER : OUTSIDE;
}

static int diag_socket(void)
{
	static int fd = -1;

	if (fd < 0)
		fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	return fd;
}

static void visit(const struct nlmsghdr *header, visitor *visitor, void *data)
{
	const struct inet_diag_msg *socket = NLMSG_DATA(header);
	const struct rtattr *attribute = (const struct rtattr *)(socket + 1);
	int left = (int)header->nlmsg_len - (int)NLMSG_LENGTH(sizeof(*socket));
	struct tcp_info info = {0};
	bool found = false;

	if (left < 0)
		return;
	/* SAFETY: RTA_OK keeps each attribute within the message, and no more is copied than
	 * either side has: kernels differ in how long the structure is. */
	for (; RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left))
		if (attribute->rta_type == INET_DIAG_INFO) {
			size_t length = RTA_PAYLOAD(attribute);

			memcpy(&info, RTA_DATA(attribute),
			       length < sizeof(info) ? length : sizeof(info));
			found = length > 0;
		}
	visitor(socket, found ? &info : NULL, data);
}

static int receive_list(uint32_t sequence, visitor *visitor, void *data)
{
	static char buffer[65536] __attribute__((aligned(NLMSG_ALIGNTO)));

	for (;;) {
		ssize_t received = recv(diag_socket(), buffer, sizeof(buffer), 0);
		uint32_t left = (uint32_t)received;

		if (received < 0)
			return fail("sockets", "receive");
		/* SAFETY: NLMSG_OK keeps each message within what was received. */
		for (struct nlmsghdr *header = (struct nlmsghdr *)buffer; NLMSG_OK(header, left);
		     header = NLMSG_NEXT(header, left)) {
			if (header->nlmsg_seq != sequence)
				continue; /* of a list that was given up */
			if (header->nlmsg_type == NLMSG_DONE)
				return 0;
			if (header->nlmsg_type == NLMSG_ERROR) {
				errno = -((struct nlmsgerr *)NLMSG_DATA(header))->error;
				return fail("sockets", "list");
			}
			visit(header, visitor, data);
		}
	}
}

static struct request new_request(uint16_t type, uint16_t flags, int family)
{
	static uint32_t sequence;
	struct request request = {
		.header = {.nlmsg_len = sizeof(request),
			   .nlmsg_type = type,
			   .nlmsg_flags = NLM_F_REQUEST | flags,
			   .nlmsg_seq = ++sequence},
		.query = {.sdiag_family = (uint8_t)family, .sdiag_protocol = IPPROTO_TCP},
	};

	return request;
}

/* Visits the sockets in the given states, of both families. */
static int each_socket(uint32_t states, visitor *visitor, void *data)
{
	static const int families[] = {AF_INET, AF_INET6};

	for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
		struct request request = new_request(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, families[i]);

		request.query.idiag_states = states;
		request.query.idiag_ext = 1 << (INET_DIAG_INFO - 1);
		if (send(diag_socket(), &request, sizeof(request), 0) < 0)
			return fail("sockets", "ask");
		if (receive_list(request.header.nlmsg_seq, visitor, data))
			return -1;
	}
	return 0;
}

struct judging {
	uint16_t port;
	bool held; /* what clients send does not arrive: no new request comes */
	uint64_t tie_ms;
	struct survey *survey;
};

/* A client that has just connected is about to ask: to it a reset would be a lost request. */
static const char *silent(const struct tcp_info *info, bool held)
{
	if (info->tcpi_bytes_received)
		return "a request without an answer";
	return !held && info->tcpi_last_data_recv < FRESH_MS ? "a new connection" : NULL;
}

/*
 * The ages of the last data are in ticks of the kernel: a request right after an answer ties with
 * it, and is taken for unanswered until it would be late. The send queue says nothing of an open
 * connection, a client's delayed acknowledgement holds it; of a closed one it is the answer's end.
 */
static const char *unanswered(const struct tcp_info *info, const struct judging *judging)
{
	if (info->tcpi_notsent_bytes)
		return "bytes not sent";
	if (!info->tcpi_bytes_sent)
		return silent(info, judging->held);
	if (info->tcpi_last_data_recv < info->tcpi_last_data_sent)
		return "a request after the last answer";
	if (info->tcpi_last_data_sent < (judging->held ? FRESH_HELD_MS : FRESH_MS))
		return "an answer that may go on";
	if (info->tcpi_last_data_recv == info->tcpi_last_data_sent && info->tcpi_bytes_received &&
	    info->tcpi_last_data_recv < judging->tie_ms)
		return "perhaps a request after the last answer";
	return NULL;
}

static const char *in_flight(const struct inet_diag_msg *socket, const struct tcp_info *info,
			     const struct judging *judging)
{
	switch (socket->idiag_state) {
	case BPF_TCP_LISTEN:
		return socket->idiag_rqueue ? "a connection not accepted" : NULL;
	case BPF_TCP_SYN_RECV:
	case BPF_TCP_NEW_SYN_RECV:
		return "a handshake";
	case BPF_TCP_CLOSE_WAIT:
		return "a client that has closed and not been closed";
	case BPF_TCP_FIN_WAIT1:
	case BPF_TCP_CLOSING:
	case BPF_TCP_LAST_ACK:
		return socket->idiag_wqueue > 1 ? "an answer not acknowledged" : NULL;
	case BPF_TCP_TIME_WAIT:
		return NULL;
	default:
		if (socket->idiag_rqueue)
			return "bytes not read";
		return info ? unanswered(info, judging) : NULL;
	}
}

static void judge(const struct inet_diag_msg *socket, const struct tcp_info *info, void *data)
{
	struct judging *judging = data;
	struct survey *survey = judging->survey;

	if (ntohs(socket->id.idiag_sport) != judging->port)
		return;
	if (socket->idiag_state != BPF_TCP_LISTEN && side_of(socket) == OUTSIDE)
		survey->connections++;
	if (!survey->in_flight)
		survey->in_flight = in_flight(socket, info, judging);
}

/* With held the caller says that the gate is closed, so that who has its answer asks no more. */
int sockets_survey(uint16_t port, uint64_t tie_ms, bool held, struct survey *survey)
{
	struct judging judging = {.port = port, .held = held, .tie_ms = tie_ms, .survey = survey};

	*survey = (struct survey){0};
	return each_socket(CONNECTED | STATE(LISTEN), judge, &judging);
}

/* The sockets that are to be ended; those that find no place wait for the next round. */
struct doomed {
	uint16_t port; /* also ends the inner address's own connections to it; 0 for none */
	size_t count;
	bool full;
	struct inet_diag_msg sockets[ENDED_AT_ONCE];
};

static void doom(const struct inet_diag_msg *socket, const struct tcp_info *info, void *data)
{
	struct doomed *doomed = data;
	enum side side = side_of(socket);
	bool ours = side == INNER && doomed->port &&
		    (ntohs(socket->id.idiag_sport) == doomed->port ||
		     ntohs(socket->id.idiag_dport) == doomed->port);

	(void)info;
	if (side != OUTSIDE && !ours)
		return;
	if (doomed->count == ENDED_AT_ONCE)
		doomed->full = true;
	else
		doomed->sockets[doomed->count++] = *socket;
}

/* Ends one socket, its peer gets a RST. Returns 0 or the kernel's error number. */
static int end_socket(const struct inet_diag_msg *socket)
{
	struct request request = new_request(SOCK_DESTROY, NLM_F_ACK, socket->idiag_family);
	struct {
		struct nlmsghdr header;
		struct nlmsgerr error;
		char rest[256];
	} answer;

	request.query.id = socket->id;
	if (send(diag_socket(), &request, sizeof(request), 0) < 0)
		return errno;
	do {
		ssize_t length = recv(diag_socket(), &answer, sizeof(answer), 0);

		if (length < 0)
			return errno;
		/* SAFETY: what is read below was received; a shorter message is refused. */
		if (length < (ssize_t)NLMSG_LENGTH(sizeof(struct nlmsgerr)))
			return EPROTO;
	} while (answer.header.nlmsg_seq != request.header.nlmsg_seq);
	return answer.header.nlmsg_type == NLMSG_ERROR ? -answer.error.error : EPROTO;
}

static int end_doomed(const struct doomed *doomed, uint16_t port, struct ended *ended)
{
	for (size_t i = 0; i < doomed->count; i++) {
		const struct inet_diag_msg *socket = &doomed->sockets[i];
		int error = end_socket(socket);

		errno = error;
		if (error == ENOENT) /* it went by itself */
			continue;
		if (error)
			return fail("sockets", "end one in state %d", socket->idiag_state);
		if (side_of(socket) != OUTSIDE)
			continue;
		if (port && ntohs(socket->id.idiag_sport) == port)
			ended->inbound++;
		else
			ended->outbound++;
	}
	return 0;
}

static void before_the_end(const struct doomed *doomed, void (*act)(uint32_t *, size_t))
{
	static uint32_t inodes[ENDED_AT_ONCE];

	for (size_t i = 0; i < doomed->count; i++)
		inodes[i] = doomed->sockets[i].idiag_inode;
	act(inodes, doomed->count);
}

/* Has answers to the outside sent at once; of very many connections the first ones. */
int sockets_hurry(void)
{
	static struct doomed doomed;

	doomed = (struct doomed){0};
	if (each_socket(STATE(ESTABLISHED), doom, &doomed))
		return -1;
	before_the_end(&doomed, closing_hurry);
	return 0;
}

/*
 * Ends the connections to the outside and those of the inner address to its own trigger port, which
 * are a warm-up's; only the former are counted. Connections over loopback stay.
 */
static int end_outside(uint16_t port, bool finish, struct ended *ended)
{
	static struct doomed doomed;

	*ended = (struct ended){0};
	do {
		doomed.port = port;
		doomed.count = 0;
		doomed.full = false;
		if (each_socket(CONNECTED, doom, &doomed))
			return -1;
		if (finish)
			before_the_end(&doomed, closing_finish);
		if (end_doomed(&doomed, port, ended))
			return -1;
	} while (doomed.full);
	return 0;
}

int sockets_end_outside(uint16_t port, struct ended *ended)
{
	return end_outside(port, false, ended);
}

/* Ends all connections to the outside, so that idle clients learn of an evict: by a FIN, then for
 * good by a RST, which also answers what a client may send at this very moment. */
int sockets_end_all(void)
{
	struct ended ended;

	return end_outside(0, true, &ended);
}

/* A counter of the kernel's "Tcp:" line, of both families; 0 if unknown. */
static uint64_t tcp_counter(int place)
{
	static int fd = -1;
	char text[4096], *word;
	ssize_t length;

	if (fd < 0)
		fd = open("/proc/net/snmp", O_RDONLY | O_CLOEXEC);
	length = pread(fd, text, sizeof(text) - 1, 0);
	if (length < 0)
		return 0;
	text[length] = 0;
	word = strstr(text, "\nTcp: ");			  /* the names */
	word = word ? strstr(word + 1, "\nTcp: ") : NULL; /* the numbers */
	for (int i = 0; word && i < place; i++)
		word = strchr(word + 1, ' ');
	return word ? strtoull(word, NULL, 10) : 0;
}

/* Moves with every connection that was taken. */
uint64_t sockets_activity(void)
{
	return tcp_counter(PASSIVE_OPENS);
}

/* Moves with every reset that was sent. */
uint64_t sockets_resets(void)
{
	return tcp_counter(RESETS_SENT);
}
