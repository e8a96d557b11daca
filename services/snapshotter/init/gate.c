// SPDX-License-Identifier: Apache-2.0
/*
 * The gate: the inner addresses' entries in the `local` routing table. Without them the kernel
 * inside is silent; the addresses, neighbours and other routes stay.
 */
#include "init.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#define MOST_ENTRIES 8

struct route_request {
	struct nlmsghdr header;
	struct rtmsg route;
	char attributes[128];
};

static int netlink_fd = -1;
static unsigned int link_index;
static struct in_addr address4;
static struct in6_addr address6;
static bool has4, has6;

static void put_attribute(struct route_request *request, unsigned short type, const void *value,
			  size_t length)
{
	struct rtattr *attribute =
		(struct rtattr *)((char *)request + NLMSG_ALIGN(request->header.nlmsg_len));

	attribute->rta_type = type;
	attribute->rta_len = (unsigned short)RTA_LENGTH(length);
	memcpy(RTA_DATA(attribute), value, length);
	request->header.nlmsg_len =
		NLMSG_ALIGN(request->header.nlmsg_len) + (unsigned int)RTA_SPACE(length);
}

/* Sends the request and returns 0, or -1 with the kernel's errno. */
static int converse(struct route_request *request)
{
	char answer[1024];
	ssize_t length;
	struct nlmsghdr *header = (struct nlmsghdr *)answer;

	request->header.nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
	if (send(netlink_fd, request, request->header.nlmsg_len, 0) < 0)
		return -1;
	length = recv(netlink_fd, answer, sizeof(answer), 0);
	if (length < (ssize_t)NLMSG_LENGTH(sizeof(struct nlmsgerr)) ||
	    header->nlmsg_type != NLMSG_ERROR) {
		errno = EPROTO;
		return -1;
	}
	errno = -((struct nlmsgerr *)NLMSG_DATA(header))->error;
	return errno ? -1 : 0;
}

static int change(unsigned short type, unsigned char family, const void *address, size_t length)
{
	struct route_request request = {
		.header = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct rtmsg)), .nlmsg_type = type},
		.route = {.rtm_family = family,
			  .rtm_dst_len = (unsigned char)(length * 8),
			  .rtm_table = RT_TABLE_LOCAL,
			  .rtm_protocol = RTPROT_KERNEL,
			  .rtm_scope = family == AF_INET ? RT_SCOPE_HOST : RT_SCOPE_UNIVERSE,
			  .rtm_type = RTN_LOCAL},
	};

	if (type == RTM_NEWROUTE)
		request.header.nlmsg_flags = NLM_F_CREATE | NLM_F_REPLACE;
	put_attribute(&request, RTA_DST, address, length);
	put_attribute(&request, RTA_OIF, &link_index, sizeof(link_index));
	if (type == RTM_NEWROUTE && family == AF_INET)
		put_attribute(&request, RTA_PREFSRC, address, length);
	return converse(&request);
}

int gate_set_addresses(const char *ipv4, const char *ipv6)
{
	errno = 0;
	if (netlink_fd < 0)
		netlink_fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (netlink_fd < 0)
		return fail("gate", "netlink");
	has4 = ipv4 && inet_pton(AF_INET, ipv4, &address4) == 1;
	has6 = ipv6 && inet_pton(AF_INET6, ipv6, &address6) == 1;
	if (!has4 && !has6)
		return fail("gate", "no inner address");
	link_index = if_nametoindex(INNER_LINK);
	return link_index ? 0 : fail("gate", "no link " INNER_LINK);
}

int gate_open(void)
{
	if (has4 && change(RTM_NEWROUTE, AF_INET, &address4, sizeof(address4)))
		return fail("gate", "opening IPv4");
	if (has6 && change(RTM_NEWROUTE, AF_INET6, &address6, sizeof(address6)))
		return fail("gate", "opening IPv6");
	return 0;
}

/* The kernel's own entry of an IPv6 address and one of ours differ in metric and stand side by
 * side. */
static int remove_all(unsigned char family, const void *address, size_t length)
{
	for (int i = 0; i < MOST_ENTRIES; i++)
		if (change(RTM_DELROUTE, family, address, length))
			return errno == ESRCH ? 0 : -1;
	errno = ELOOP;
	return -1;
}

/* Closing a closed gate is no error, as opening an open one. */
int gate_close(void)
{
	if (has4 && remove_all(AF_INET, &address4, sizeof(address4)))
		return fail("gate", "closing IPv4");
	if (has6 && remove_all(AF_INET6, &address6, sizeof(address6)))
		return fail("gate", "closing IPv6");
	return 0;
}
